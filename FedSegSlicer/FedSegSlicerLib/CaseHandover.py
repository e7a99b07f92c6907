"""Hands a case of the scene to the worker: image and segmentation as files where only the worker looks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from .Errors import UserError
from .FederationTypes import CaseOffer
from .SampleVolumes import isSample
from .SegmentExport import SegmentExport
from .VolumeExchange import VolumeExchange, knownModality


class CaseHandover:
    """Writes the files of a case, one case at a time; nothing waits.

    Args:
        exchange: the folder for them.
        export: writes the segmentation.
    """

    def __init__(self, exchange: VolumeExchange, export: SegmentExport) -> None:
        self._exchange, self._export = exchange, export
        self._number = 0

    def write(
        self, offer: CaseOffer, onDone: Callable[[dict[str, Any], Path], None], onError: Callable[[UserError], None]
    ) -> None:
        """Write image and segmentation, then call back.

        Args:
            offer: the case.
            onDone: gets what the worker needs to know of the case, and the segmentation's file, to be deleted then.
            onError: gets what went wrong.

        Raises:
            UserError: ``case.no-segmentation``, ``case.sample``, and what keeps the volume from being handed over.
        """
        if isSample(offer.volume):
            raise UserError(
                "case.sample",
                _("This volume is a sample that was kept in See, and no patient's image."),
                _("Choose the image that it was made of."),
            )
        if offer.segmentation is None:
            raise UserError("case.no-segmentation", _("No segmentation is chosen."), _("Choose the volume's outlines."))
        self._number += 1
        number = self._number
        labels = self._exchange.folder() / f"case-{number}.seg.nrrd"

        def written(image: Path) -> None:
            if number == self._number:
                onDone({**_described(offer), "image": str(image), "labels": str(labels)}, labels)
            else:
                labels.unlink(missing_ok=True)

        def failed(error: UserError) -> None:
            labels.unlink(missing_ok=True)
            if number == self._number:
                onError(error)

        def outlined(image: Path) -> None:
            if number == self._number:
                self._export.export(offer.segmentation, offer.volume, labels, lambda: written(image), failed)

        self._exchange.export(offer.volume, outlined, failed)

    def drop(self) -> None:
        """Call back no more for what is being written."""
        self._number += 1

    def close(self) -> None:
        """Delete what was written."""
        self.drop()
        self._exchange.clear()


def _described(offer: CaseOffer) -> dict[str, Any]:
    described = {
        "patient": offer.patient.strip(),
        "title": offer.volume.GetName(),
        "naming": offer.naming,
        "accept": list(offer.accept),
    }
    modality = offer.modality or knownModality(offer.volume)
    return described if modality is None else {**described, "modality": modality}
