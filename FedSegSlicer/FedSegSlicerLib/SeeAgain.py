"""Making a kept sample again from its parameters: offered where such a one is the volume to look at."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from .Errors import UserError
from .SampleVolumes import factsOf
from .SeeLogic import SeeLogic
from .SeeTypes import SeeState

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode


class SeeAgain:
    """Drives *Make again*.

    Args:
        ui: the widgets of FedSegSlicer.ui by name.
        logic: what does the work.
        onError: called with what is wrong before anything was started, or with None where it was.
    """

    def __init__(self, ui: object, logic: SeeLogic, onError: Callable[[UserError | None], None]) -> None:
        self.ui = ui
        self.logic = logic
        self._onError = onError
        self._volume: vtkMRMLScalarVolumeNode | None = None
        self._words = ""
        ui.seeAgainButton.connect("clicked(bool)", self._onClicked)
        self.update(None)

    def update(self, volume: "vtkMRMLScalarVolumeNode | None") -> None:
        """Show what can be done with the chosen volume, and what came of it."""
        if volume is not self._volume:
            self._volume, self._words = volume, ""
        self.ui.seeAgainButton.setVisible(factsOf(volume) is not None)
        self.ui.seeAgainButton.enabled = self.logic.state is SeeState.IDLE
        self.ui.seeAgainLabel.text = self._words
        self.ui.seeAgainLabel.setVisible(bool(self._words))

    def _onClicked(self, _checked: bool = False) -> None:
        with slicer.util.tryWithErrorDisplay(_("The sample could not be made again.")):
            self._words = ""
            try:
                self.logic.makeAgain(self._volume, self._onMade)
            except UserError as error:
                self._onError(error)
            else:
                self._onError(None)

    def _onMade(self, node: "vtkMRMLScalarVolumeNode", isSame: bool) -> None:
        words = (
            _("Made again as '{name}': every voxel is the kept one's.")
            if isSame
            else _("Made again as '{name}', but with other voxels: the image it was made of has changed since.")
        )
        self._words = words.format(name=node.GetName())
