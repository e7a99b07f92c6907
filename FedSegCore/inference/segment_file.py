"""From an image file and a folder of releases to a segmentation file: what the command and the worker both do."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from FedSegCore.common.errors import BadInputError, UsageError
from FedSegCore.common.progress import Progress
from FedSegCore.inference.doubts import doubts_of
from FedSegCore.inference.segmenter import Segmenter
from FedSegCore.models.release import Release, choose_release, list_releases
from FedSegCore.volumes import dicom_seg
from FedSegCore.volumes.display_pieces import write_pieces
from FedSegCore.volumes.labels import Label
from FedSegCore.volumes.modality import SURE, detect_modality
from FedSegCore.volumes.reading import read_volume
from FedSegCore.volumes.segmentation_file import segment_volumes, write_segmentation
from FedSegCore.volumes.volume import Volume
from FedSegCore.volumes.writing import SUFFIXES


@dataclass(frozen=True)
class SegmentOrder:
    """What to segment, with what, into what.

    Attributes:
        image: file or DICOM series folder.
        releases: folder of releases.
        output: ``.seg.nrrd``, ``.nrrd``, ``.nii`` or ``.nii.gz``, or ``.dcm`` (DICOM SEG) where ``image`` is a folder
            with a DICOM series; its folder exists. None writes no such file.
        release: a release's name or id; None takes the newest that fits.
        modality: DICOM modality code; None has it detected.
        frame: which volume of a 4-D image, from 0.
        trusted: raw public keys whose releases are used; None uses any release that is whole.
        pieces: folder to write what a viewer shows, see ``display_pieces``; None writes none.
    """

    image: Path
    releases: Path
    output: Path | None
    release: str | None = None
    modality: str | None = None
    frame: int | None = None
    trusted: Collection[bytes] | None = None
    pieces: Path | None = None


class Segmented(NamedTuple):
    """What came of an order: the release that was used, and what is told of the result (see ``segment_file``)."""

    release: Release
    told: dict[str, Any]


def segment_file(segmenter: Segmenter, order: SegmentOrder, progress: Progress) -> Segmented:
    """Do ``order``; the output is written whole or not at all.

    Returns:
        The release, and as ``told``: ``release`` (its id), ``signer`` (fingerprint), ``trusted`` (whether the caller
        named this signer), ``modality``, ``device``, ``seconds``, ``confidence`` (label name → [0, 1]), ``notes``,
        ``segments`` (``segment_volumes``), ``size`` and ``spacing`` of the image along (i, j, k), ``intensity_unit``
        (``"HU"`` for CT, else None), ``please_check``, a list of {label, code, reason} (the label is empty where the
        image is meant), and ``pieces``: what ``write_pieces`` returned, or None.

    Raises:
        UsageError: ``output.*``.
        BadInputError: ``image.*``, ``release.*``.
        CannotDoHereError: ``device.*``.
        CancelledError: the user cancelled; nothing was written.
    """
    series = _check_output(order)
    progress.update(0.0, "reading the image")
    volume = read_volume(order.image, modality=order.modality, frame=order.frame)
    progress.update(0.05, "checking the release")
    modality = choose_modality(volume, order)
    release = choose_release(order.releases, modality, order.release, order.trusted)
    result = segmenter.segment(volume, release, progress.part(0.1, 0.9), modality=modality)
    progress.update(0.9, "writing the segmentation")
    given = release.card.given_labels
    if order.output is not None:
        _write(result.labels, given, order.output, series, release.id)
    pieces = order.pieces and write_pieces(result.labels, given, order.pieces, progress.part(0.92, 1.0))
    progress.update(1.0, "done")
    told = {
        "release": release.id,
        "signer": release.signer,
        "trusted": release.trusted,
        "modality": modality,
        "device": result.device,
        "seconds": round(result.seconds, 3),
        "confidence": _rounded(result.confidence),
        "notes": list(result.notes),
        "segments": segment_volumes(result.labels, given, volume),
        "intensity_unit": "HU" if modality == "CT" else None,
        "please_check": [asdict(doubt) for doubt in doubts_of(result)],
        "size": list(volume.grid.shape[::-1]),
        "spacing": list(volume.grid.spacing),
        "pieces": pieces,
    }
    return Segmented(release, told)


def choose_modality(volume: Volume, order: SegmentOrder) -> str:
    """Return the modality told, or detected with confidence, or the only one there is a release for.

    Raises:
        BadInputError: ``image.modality-unsure``.
    """
    if order.modality is not None:
        return order.modality
    guess = detect_modality(volume)
    if guess.confidence >= SURE:
        return guess.modality
    whole = list_releases(order.releases, trusted=order.trusted, card_only=True)
    usable = [r for r in whole if order.release in (None, r.id, r.card.name)]
    offered = {modality for release in usable for modality in release.card.modalities}
    # A release asked for by name says what its user takes the image for; a mere guess needs a release that agrees.
    if len(offered) == 1 and (order.release is not None or guess.modality in offered):
        return offered.pop()
    raise BadInputError(
        "image.modality-unsure",
        f"What kind of image this is remains unsure (perhaps {guess.modality}: {guess.reason}).",
        f"Say which kind of image it is: {' or '.join(sorted(offered)) or 'CT, MR or US'}.",
    )


def _check_output(order: SegmentOrder) -> Sequence[str]:
    """Refuse before the work what could not be written after it; return the series' files for a DICOM segmentation."""
    if order.output is None:
        return ()
    name = order.output.name.lower()
    if not name.endswith((*SUFFIXES, dicom_seg.SUFFIX)):
        raise UsageError(
            "output.unknown-type",
            f"{order.output.name} has no known ending.",
            "End it in .seg.nrrd, .nii.gz or .nii, or in .dcm for a DICOM segmentation of a DICOM series.",
        )
    if not order.output.parent.is_dir():
        raise UsageError("output.no-folder", "The folder to write to does not exist.", "Make it first.")
    if order.output.resolve() == order.image.resolve():
        raise UsageError("output.is-input", "The segmentation would replace the image.", "Give another file to write.")
    if not name.endswith(dicom_seg.SUFFIX):
        return ()
    series = dicom_seg.source_files(order.image)
    dicom_seg.refuse_beside(series, order.output)
    return series


def _write(labels: Volume, given: Sequence[Label], output: Path, series: Sequence[str], release: str) -> None:
    if output.name.lower().endswith(dicom_seg.SUFFIX):
        dicom_seg.write_dicom_seg(labels, given, series, release, output)
    else:
        write_segmentation(labels, given, output)


def _rounded(confidence: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in confidence.items()}
