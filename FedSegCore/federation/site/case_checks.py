"""Checks of a case before it may be trained on: pure functions of voxels and labels, each finding with a code.

A finding that refuses keeps the case out; one that can rightly be so now and then (a mirrored patient, a case without
any structure) may be accepted by name. No finding names a file, a patient or a segment of the site.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from FedSegCore.volumes.geometry import reorient
from FedSegCore.volumes.labels import Label, LabelContract
from FedSegCore.volumes.modality import detect_modality
from FedSegCore.volumes.pixels import evenly_spread
from FedSegCore.volumes.preparation import is_across, must_be_axial
from FedSegCore.volumes.volume import Grid, Volume

Array = npt.NDArray[Any]

ACCEPTABLE = frozenset({"case.empty", "case.sides", "case.size", "case.intensities", "case.label-declared"})
"""Refusals that a person may overrule case by case: rare, but possible in a sound case."""

_RIGHT, _LEFT = "24028007", "7771000"
_LIVER, _SPLEEN, _BLADDER, _PANCREAS, _KIDNEY = "10200004", "78961009", "89837001", "15776009", "64033007"
_TOWARDS = {"left": (0, 1.0), "behind": (1, 1.0), "above": (2, 1.0)}

# SNOMED-CT code, code, where the first lies seen from the second: so in (nearly) every patient, whatever the posture.
_PLACES = (
    (_SPLEEN, _LIVER, "left"),
    (_LIVER, _BLADDER, "above"),
    (_KIDNEY, _BLADDER, "above"),
    (_KIDNEY, _PANCREAS, "behind"),
)

_NOT_IN_PATIENT_SPACE = ("US", "ES")
_EXTENT_MM = (5.0, 2500.0)
_SPACING_MM = (0.01, 25.0)
_SAMPLE = 2_000_000
_FEW_VALUES = 8


@dataclass(frozen=True)
class CaseFinding:
    """One thing found in a case.

    Attributes:
        code: stable, ``case.*``.
        words: what is wrong, in plain words.
        remedy: what to do about it.
        refuses: whether it keeps the case out, unless it is accepted.
    """

    code: str
    words: str
    remedy: str
    refuses: bool = True


def check_case(
    image: Volume, labels: Volume, contract: LabelContract, annotated: Sequence[int], modality: str
) -> tuple[CaseFinding, ...]:
    """Return all findings of a case whose labels are contract values on the image's grid; empty if it is sound.

    Args:
        image: (c, k, j, i), as read.
        labels: (1, k, j, i) of contract values.
        contract: the federation's labels.
        annotated: contract values that the case annotates.
        modality: DICOM modality code of the site's cohort.
    """
    checks: tuple[Callable[[], list[CaseFinding]], ...] = (
        lambda: check_plane(image.grid, modality),
        lambda: check_extent(image.grid, modality),
        lambda: check_filled(labels, contract, annotated),
        lambda: check_places(labels, contract, modality),
        lambda: check_intensities(image, modality),
    )
    return tuple(finding for check in checks for finding in check())


def check_plane(grid: Grid, modality: str) -> list[CaseFinding]:
    """Return ``case.not-axial`` for a single slice of a volume that is not axial: networks see axial slices."""
    if not (is_across(grid) and must_be_axial(modality)):
        return []
    return [
        CaseFinding(
            "case.not-axial",
            "The image is a single slice, and not an axial one; networks are trained on axial slices.",
            "Offer the whole volume, or an axial slice.",
        )
    ]


def check_extent(grid: Grid, modality: str) -> list[CaseFinding]:
    """Return ``case.size`` where millimetres make no sense for a patient: a header in metres, or without spacing."""
    if modality in _NOT_IN_PATIENT_SPACE:
        return []
    sizes = [count * mm for count, mm in zip(grid.shape[::-1], grid.spacing, strict=True) if count > 1]
    spacing = [mm for count, mm in zip(grid.shape[::-1], grid.spacing, strict=True) if count > 1]
    plausible = all(_EXTENT_MM[0] <= size <= _EXTENT_MM[1] for size in sizes)
    plausible = plausible and all(_SPACING_MM[0] <= mm <= _SPACING_MM[1] for mm in spacing)
    if plausible:
        return []
    told = " x ".join(f"{size:.3g}" for size in sizes)
    return [
        CaseFinding(
            "case.size",
            f"By its header the image covers {told} mm, which is no part of a patient.",
            "Correct the image's spacing in 3D Slicer (Volumes module) and save it again.",
        )
    ]


def check_filled(labels: Volume, contract: LabelContract, annotated: Sequence[int]) -> list[CaseFinding]:
    """Return ``case.empty`` for no labelled voxel, and a remark on annotated structures that are absent."""
    counts = np.bincount(labels.array.ravel(), minlength=256)
    absent = [label.name for label in contract.labels if label.value in annotated and not counts[label.value]]
    if not annotated or len(absent) == len(annotated):
        return [
            CaseFinding(
                "case.empty",
                "No structure of the federation is outlined in this case.",
                "Check the segmentation and the mapping of its segments; accept it if the patient has none of them.",
            )
        ]
    if not absent:
        return []
    return [
        CaseFinding(
            "case.absent",
            f"Annotated but not outlined anywhere: {', '.join(absent)}.",
            "Right if the patient does not have it; else declare it not annotated.",
            refuses=False,
        )
    ]


def check_places(labels: Volume, contract: LabelContract, modality: str) -> list[CaseFinding]:
    """Return ``case.sides`` where structures lie the wrong way round: a header that mirrors or turns the patient.

    Centres of gravity in patient space are compared: right and left of a pair, spleen and liver, liver or kidneys and
    bladder, kidneys and pancreas. The handedness of the voxel axes is no sign: both kinds are common and right.
    """
    if modality in _NOT_IN_PATIENT_SPACE:
        return []
    centres = _centres(labels, contract.labels)
    wrong = [words for words, axis, sign, a, b in _expected(contract.labels) if _contradicts(centres, axis, sign, a, b)]
    if not wrong:
        return []
    return [
        CaseFinding(
            "case.sides",
            f"Structures lie the wrong way round: {'; '.join(wrong[:3])}.",
            "Compare the sides in 3D Slicer with the original; accept it only for a patient who is really so.",
        )
    ]


def _expected(labels: Sequence[Label]) -> list[tuple[str, int, float, int, int]]:
    """Return (what is wrong if it is not so, LPS axis, sign, a, b): a lies towards sign along the axis, seen from b."""
    found = []
    for first, second in combinations(labels, 2):
        for a, b in ((first, second), (second, first)):
            sides = (a.modifier.code if a.modifier else "", b.modifier.code if b.modifier else "")
            if a.type.code == b.type.code and sides == (_LEFT, _RIGHT):
                found.append((f"{a.name} is not on the left of {b.name}", 0, 1.0, a.value, b.value))
            for code, other, where in _PLACES:
                if (a.type.code, b.type.code) == (code, other):
                    axis, sign = _TOWARDS[where]
                    side = "on the left of" if where == "left" else where
                    found.append((f"{a.name} is not {side} {b.name}", axis, sign, a.value, b.value))
    return found


def _contradicts(centres: dict[int, Array], axis: int, sign: float, a: int, b: int) -> bool:
    return a in centres and b in centres and bool((centres[a][axis] - centres[b][axis]) * sign < 0)


def _centres(labels: Volume, shown: Sequence[Label]) -> dict[int, Array]:
    """Return contract value → centre of gravity in LPS mm, of structures that are there."""
    centres = {}
    for label in shown:
        k, j, i = np.nonzero(labels.array[0] == label.value)
        if k.size:
            centres[label.value] = (labels.grid.affine() @ [i.mean(), j.mean(), k.mean(), 1.0])[:3]
    return centres


def check_intensities(image: Volume, modality: str) -> list[CaseFinding]:
    """Return what the grey values say against a scan of ``modality``."""
    values = evenly_spread(image.array, _SAMPLE)
    found = []
    if len(np.unique(values)) <= _FEW_VALUES:
        found.append(_intensity("only a few different values, as a label map has", "Was the scan chosen?"))
    elif modality == "CT":
        found += _ct(values)
    else:
        found += _no_ct(image, values, modality)
    if "not_finite" in image.metadata:
        found.append(
            CaseFinding(
                "case.not-finite",
                f"{image.metadata['not_finite']} voxels are no numbers; they count as the darkest value.",
                "Export the image again if that is not expected.",
                refuses=False,
            )
        )
    return found


def _ct(values: Array) -> list[CaseFinding]:
    if values.min() >= 0:
        return [_intensity("no voxel lies below 0, so these are no Hounsfield units", "Give the original CT.")]
    tissue = float(((values > -200) & (values < 300)).mean())
    if tissue < 0.01 or values.max() <= 0:
        return [_intensity("hardly a voxel has the value of tissue in a CT", "Give the original CT.")]
    return []


def _no_ct(image: Volume, values: Array, modality: str) -> list[CaseFinding]:
    if modality in _NOT_IN_PATIENT_SPACE:
        if values.min() < 0 or values.max() > 65535:
            return [_intensity("a picture has no values below 0 or above 65535", "Was the right image chosen?")]
        return []
    guess = detect_modality(replace(image, modality=None))
    if guess.modality == "CT" and guess.confidence >= 0.9:
        return [_intensity(f"it looks like a CT ({guess.reason})", f"Leave it out of a cohort of {modality}.")]
    return []


def _intensity(detail: str, remedy: str) -> CaseFinding:
    return CaseFinding(
        "case.intensities",
        f"The grey values are not those of such a scan: {detail}.",
        f"{remedy} Accept it only if you know why it is so.",
    )


def voxel_digest(volume: Volume) -> str:
    """Return the SHA-256 of an image's voxels, the same for the same image in any file, format, type or axis order."""
    # float32 holds every value of the number types that are read
    array = reorient(volume, "LPS").array.astype("<f4", order="C")
    digest = hashlib.sha256(str(array.shape).encode("ascii"))
    digest.update(array.data)
    return digest.hexdigest()
