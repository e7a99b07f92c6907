"""From what is chosen and known: what would be used, and why the button cannot be pressed yet."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from .Errors import UserError
from .Parameters import SURE, DeviceChoice, ModalityChoice
from .SegmentTypes import Inspection, Release

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode


@dataclass
class Choices:
    """Everything the tab knows.

    Attributes:
        volume: the volume to segment.
        modality: what the user says it is.
        inspection: what it seems to be; an error if it cannot be segmented; None while that is being found out.
        release: the release the user chose, ``""`` for the newest.
        device: where to compute.
        devices: what the worker can compute on.
        releases: what can be chosen, newest first; None while that is being found out.
        releasesError: why (some) releases are missing.
        releasesFolder: where they are looked for, ``""`` if the user has not said.
    """

    volume: "vtkMRMLScalarVolumeNode | None" = None
    modality: ModalityChoice = ModalityChoice.AUTO
    inspection: Inspection | UserError | None = None
    release: str = ""
    device: DeviceChoice = DeviceChoice.AUTO
    devices: list[str] = field(default_factory=lambda: ["auto", "cpu"])
    releases: list[Release] | None = field(default_factory=list)
    releasesError: UserError | None = None
    releasesFolder: str = ""

    def problem(self) -> UserError | None:
        """Return the error to show in the panel."""
        if isinstance(self.inspection, UserError):
            return self.inspection
        return self.releasesError


def modalityToUse(choices: Choices) -> str | None:
    """Return the DICOM modality code to segment as: what the user said, else what was detected."""
    if choices.modality is not ModalityChoice.AUTO:
        return choices.modality.value
    return choices.inspection.modality if isinstance(choices.inspection, Inspection) else None


def releasesFor(choices: Choices) -> list[Release]:
    """Return the releases for the modality in use, newest first."""
    modality = modalityToUse(choices)
    return [release for release in choices.releases or [] if modality in release.modalities]


def releaseToUse(choices: Choices) -> Release | None:
    """Return the release the user chose if it fits, else the newest that fits."""
    fitting = releasesFor(choices)
    chosen = [release for release in fitting if release.id == choices.release]
    return next(iter(chosen or fitting), None)


def reasonNotReady(choices: Choices) -> str:
    """Return why segmenting cannot start, in words; ``""`` if it can."""
    if choices.volume is None:
        return _("Choose a volume to segment.")
    return reasonNotFit(choices)


def reasonNotFit(choices: Choices) -> str:
    """Return why an image of which only ``inspection`` is known cannot be segmented, in words; ``""`` if it can."""
    if isinstance(choices.inspection, UserError):
        return choices.inspection.cause
    if choices.inspection is None:
        return _("Looking at the volume…")
    return _reasonModality(choices) or _reasonRelease(choices) or reasonDevice(choices.device.value, choices.devices)


def _reasonModality(choices: Choices) -> str:
    if choices.modality is ModalityChoice.AUTO and choices.inspection.confidence < SURE:
        return _("Say what kind of image this is: it could not be told with certainty.")
    return ""


def _reasonRelease(choices: Choices) -> str:
    if not choices.releasesFolder:
        return _("Choose the folder of your federation's models under Settings.")
    if choices.releases is None:
        return _("Looking for models…")
    if releaseToUse(choices) is None:
        return _("There is no model for {modality} images in the folder of models.").format(
            modality=modalityToUse(choices)
        )
    return ""


def reasonDevice(device: str, devices: list[str]) -> str:
    """Return why ``device`` cannot be computed on where the worker has these ``devices``, ``""`` where it can."""
    if device not in devices:
        return _("There is no graphics card here that the runtime can use: compute on the processor.")
    return ""
