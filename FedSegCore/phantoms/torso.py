"""Generated patients for the demo and the tests: image and truth of a torso, as CT, MR or ultrasound would show it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from FedSegCore.common.errors import UsageError
from FedSegCore.phantoms.anatomy import LEFT_KIDNEY, LESION, LIVER, RIGHT_KIDNEY, SPLEEN, Anatomy
from FedSegCore.phantoms.tomography import make_ct, make_mr
from FedSegCore.phantoms.ultrasound import make_us
from FedSegCore.volumes.labels import CodedTerm, Label, LabelContract
from FedSegCore.volumes.volume import Volume

Size = Literal["demo", "test"]

_KIDNEY = CodedTerm(code="64033007", meaning="Kidney")

# Codes are those of Slicer's DICOM-Master terminology. The kidneys' colours differ from Slicer's, which gives both the
# same brown, hard to tell from the liver's.
TORSO_CONTRACT = LabelContract(
    labels=(
        Label(
            name="liver",
            value=LIVER,
            type=CodedTerm(code="10200004", meaning="Liver"),
            colour=(221, 130, 101),
            single=True,
        ),
        Label(
            name="right kidney",
            value=RIGHT_KIDNEY,
            type=_KIDNEY,
            modifier=CodedTerm(code="24028007", meaning="Right"),
            colour=(242, 206, 80),
            single=True,
        ),
        Label(
            name="left kidney",
            value=LEFT_KIDNEY,
            type=_KIDNEY,
            modifier=CodedTerm(code="7771000", meaning="Left"),
            colour=(86, 168, 218),
            single=True,
        ),
        Label(
            name="spleen",
            value=SPLEEN,
            type=CodedTerm(code="78961009", meaning="Spleen"),
            colour=(157, 108, 162),
            single=True,
        ),
        Label(
            name="lesion",
            value=LESION,
            type=CodedTerm(code="4147007", meaning="Mass"),
            category=CodedTerm(code="49755003", meaning="Morphologically Altered Structure"),
            colour=(144, 238, 144),
        ),
    )
)

ANNOTATED: dict[str, tuple[int, ...]] = {
    "CT": (LIVER, RIGHT_KIDNEY, LEFT_KIDNEY, SPLEEN, LESION),
    "MR": (LIVER, RIGHT_KIDNEY, LEFT_KIDNEY, SPLEEN, LESION),
    "US": (LIVER, RIGHT_KIDNEY, LESION),
}
"""Contract values annotated per modality: an ultrasound picture through the liver never shows spleen or left kidney,
so an ultrasound site declares these two as not annotated."""

_SCANNERS: dict[str, Callable[[Anatomy, int, bool], tuple[Volume, Volume]]] = {
    "CT": make_ct,
    "MR": make_mr,
    "US": make_us,
}


@dataclass(frozen=True)
class Phantom:
    """A generated patient's image and truth.

    Attributes:
        image: CT: int16 HU; MR: uint16, arbitrary units; US: uint8 grey, one slice.
        labels: uint8 contract values on the image's grid.
        annotated: contract values that can occur, ascending.
    """

    image: Volume
    labels: Volume
    annotated: tuple[int, ...]


def make_patient(modality: str, seed: int, *, size: Size = "demo") -> Phantom:
    """Return the patient that ``seed`` describes, as ``modality`` shows it; the same arguments give the same voxels.

    Args:
        modality: ``"CT"`` (i, j, k 96 x 96 x 48 voxels of 3.8 x 3.8 x 4 mm), ``"MR"`` (96 x 96 x 32 of 3.8 x 3.8 x
            6 mm) or ``"US"`` (one slice of 160 x 160 pixels of 1.4 mm: i along the transducer, j into the body).
        seed: shape, contrast, noise and position; any integer >= 0.
        size: ``"test"`` halves the voxels along every axis.

    Raises:
        UsageError: another modality.
    """
    if modality not in _SCANNERS:
        raise UsageError(
            "phantom.modality-unknown",
            f"There is no phantom for {modality}.",
            f"Choose one of {', '.join(_SCANNERS)}.",
        )
    image, labels = _SCANNERS[modality](Anatomy(seed), seed, size == "test")
    return Phantom(image, labels, ANNOTATED[modality])
