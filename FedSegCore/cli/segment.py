"""``fedseg segment``: one image in, one segmentation out."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from FedSegCore.cli.output import console, emit_json, progress_bar
from FedSegCore.common.monai_import import import_monai

if TYPE_CHECKING:
    from FedSegCore.federation.site.journal import Journal


class _Device(StrEnum):
    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class _Modality(StrEnum):
    CT = "CT"
    MR = "MR"
    US = "US"
    ES = "ES"


def segment(
    image: Annotated[Path, typer.Argument(help="NIfTI, NRRD, MetaImage, DICOM file or folder, PNG or JPEG.")],
    releases: Annotated[Path, typer.Option(help="Folder of model releases.")],
    out: Annotated[Path, typer.Option(help="Segmentation to write: .seg.nrrd, .nii.gz, .nii; .dcm of a DICOM series.")],
    release: Annotated[str | None, typer.Option(help="Release by name or id; else the newest that fits.")] = None,
    modality: Annotated[
        _Modality | None, typer.Option(help="Kind of image; else detected.", case_sensitive=False)
    ] = None,
    device: Annotated[_Device, typer.Option(help="Where to compute.")] = _Device.AUTO,
    frame: Annotated[int | None, typer.Option(min=0, help="Which volume of a 4-D image, from 0.")] = None,
    site: Annotated[
        Path | None, typer.Option(help="Site's folder: its coordinator is trusted, its journal notes the release used.")
    ] = None,
    trusted: Annotated[
        Path | None, typer.Option(help="Public release key (coordinator.pub); releases of any other are refused.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Segment IMAGE by the newest verified release of its modality, on exactly IMAGE's own grid."""
    if site is not None:
        _journal_of(site)
    keys = _trusted_keys(site, trusted)
    with progress_bar("Segmenting") as progress:
        progress.update(0.0, "starting")
        # torch takes seconds to import: only here, with Ctrl+C and the progress bar already at work.
        import_monai()
        from FedSegCore.inference.devices import describe_device
        from FedSegCore.inference.segment_file import SegmentOrder, segment_file
        from FedSegCore.inference.segmenter import Segmenter

        segmenter = Segmenter(device.value)
        console.print(f"Computing on {describe_device(segmenter.device)}.")
        order = SegmentOrder(image, releases, out, release, modality.value if modality else None, frame, keys)
        used, done = segment_file(segmenter, order, progress)
    if site is not None:
        _note_release(site, done["modality"], used.card.weights_sha256)
    _tell(done)
    if as_json:
        emit_json(done)


def _tell(done: dict[str, Any]) -> None:
    if not done["trusted"]:
        console.print(f"Who signed this release was not checked (signer {done['signer']}); see --site and --trusted.")
    for note in done["notes"]:
        console.print(note)
    console.print(f"{done['release']} ({done['modality']}, {done['device']}, {done['seconds']:.1f} s)")
    for found in done["segments"]:
        console.print(f"  {found['name']}: {_words_about(found, done)}")
    for doubt in done["please_check"]:
        console.print(f"Please check {doubt['label'] or 'the image'}: {doubt['reason']}.", soft_wrap=True)


def _words_about(found: dict[str, Any], done: dict[str, Any]) -> str:
    sure = done["confidence"].get(found["name"])
    if sure is None:
        return "not found"
    words = [_size_of(found)]
    if found["mean_intensity"] is not None:
        mean = found["mean_intensity"]
        number = f"{mean:.1f}" if abs(mean) >= 1 else f"{mean:.3g}"
        words.append(f"mean {number} {done['intensity_unit'] or ''}".strip())
    return ", ".join([*words, f"mean probability {sure:.2f}"])


def _size_of(found: dict[str, Any]) -> str:
    if found["volume_ml"] is not None:
        return f"{found['volume_ml']:.1f} ml"
    return f"{found['voxels']} pixels" if found["area_mm2"] is None else f"{found['area_mm2']:.0f} mm²"


def _trusted_keys(site: Path | None, key_file: Path | None) -> frozenset[bytes] | None:
    from FedSegCore.federation.site.trust import trusted_release_keys

    return trusted_release_keys(site, key_file)


def _journal_of(site: Path) -> "Journal":
    from FedSegCore.federation.site.folder import SiteFolder

    return SiteFolder.open(site).journal


def _note_release(site: Path, modality: str, weights_sha256: str) -> None:
    from FedSegCore.federation.site.journal_entries import ReleaseUsed

    _journal_of(site).append(ReleaseUsed(modality=modality, weights_sha256=weights_sha256))
