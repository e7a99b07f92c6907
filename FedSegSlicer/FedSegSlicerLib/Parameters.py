"""What the user has chosen, kept in the scene (nothing secret, no paths)."""

import enum
from typing import Annotated

from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

SURE = 0.7
"""Confidence of a detected modality from which on the user is not asked, as in FedSegCore."""


class ModalityChoice(enum.Enum):
    """Kind of image; the values are DICOM modality codes."""

    AUTO = "AUTO"
    CT = "CT"
    MR = "MR"
    US = "US"
    ES = "ES"

    def label(self) -> str:
        """Return the name people read."""
        return {
            ModalityChoice.AUTO: _("Detect"),
            ModalityChoice.CT: _("CT"),
            ModalityChoice.MR: _("MR"),
            ModalityChoice.US: _("Ultrasound"),
            ModalityChoice.ES: _("Endoscopy"),
        }[self]


class DeviceChoice(enum.Enum):
    """Where to compute; the values are the worker's words."""

    AUTO = "auto"
    CPU = "cpu"
    GPU = "cuda"

    def label(self) -> str:
        """Return the name people read."""
        return {
            DeviceChoice.AUTO: _("Automatic"),
            DeviceChoice.CPU: _("Processor (CPU)"),
            DeviceChoice.GPU: _("Graphics card (GPU)"),
        }[self]


class KernelChoice(enum.Enum):
    """Kernel sides that GIN draws from."""

    ONE = "1"
    ONE_THREE = "1,3"
    TO_FIVE = "1,3,5"
    TO_SEVEN = "1,3,5,7"

    def label(self) -> str:
        """Return the name people read."""
        return {
            KernelChoice.ONE: _("1: brightness only"),
            KernelChoice.ONE_THREE: _("1 and 3 (as published)"),
            KernelChoice.TO_FIVE: _("1, 3 and 5"),
            KernelChoice.TO_SEVEN: _("1, 3, 5 and 7: much texture"),
        }[self]

    def sizes(self) -> tuple[int, ...]:
        """Return the sides."""
        return tuple(int(side) for side in self.value.split(","))


@parameterNodeWrapper
class FedSegSlicerParameterNode:
    """The module's parameters.

    Attributes:
        inputVolume: the volume to segment.
        modality: its kind, or AUTO to have it detected.
        device: where to compute.
        release: name with version of the release to use, ``""`` for the newest that fits.
        seeVolume: the volume of the See tab.
        seeSegmentation: what is outlined on it.
        seeReference: a real image to compare its samples with.
        seeModality: the kind of the volume, or AUTO.
        seeStrengthLow: least share of the random look.
        seeStrengthHigh: greatest share of the random look.
        seeLayers: layers of the random network.
        seeKernels: sides of its kernels.
        seePerBatch: one random network for all samples.
        seeSamples: how many samples.
        seeSeed: what they are drawn from.
        seeLinkedWindow: all have the original's window and level.
        seeInViews: show them in the slice views too.
        fedVolume: the image of a case to add to the site's cases.
        fedSegmentation: its segmentation.
        fedModality: its kind, or AUTO.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    modality: ModalityChoice = ModalityChoice.AUTO
    device: DeviceChoice = DeviceChoice.AUTO
    release: str = ""
    seeVolume: vtkMRMLScalarVolumeNode
    seeSegmentation: vtkMRMLSegmentationNode
    seeReference: vtkMRMLScalarVolumeNode
    seeModality: ModalityChoice = ModalityChoice.AUTO
    seeStrengthLow: Annotated[float, WithinRange(0, 1)] = 0.0
    seeStrengthHigh: Annotated[float, WithinRange(0, 1)] = 1.0
    seeLayers: Annotated[float, WithinRange(2, 8)] = 4.0
    seeKernels: KernelChoice = KernelChoice.ONE_THREE
    seePerBatch: bool = False
    seeSamples: Annotated[int, WithinRange(1, 11)] = 5
    seeSeed: Annotated[int, WithinRange(0, 2147483647)] = 0
    seeLinkedWindow: bool = False
    seeInViews: bool = True
    fedVolume: vtkMRMLScalarVolumeNode
    fedSegmentation: vtkMRMLSegmentationNode
    fedModality: ModalityChoice = ModalityChoice.AUTO
