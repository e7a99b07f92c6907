"""What the user has chosen, kept in the scene (nothing secret, no paths)."""

import enum

from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import parameterNodeWrapper


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


@parameterNodeWrapper
class FedSegSlicerParameterNode:
    """The module's parameters.

    Attributes:
        inputVolume: the volume to segment.
        modality: its kind, or AUTO to have it detected.
        device: where to compute.
        release: name with version of the release to use, ``""`` for the newest that fits.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    modality: ModalityChoice = ModalityChoice.AUTO
    device: DeviceChoice = DeviceChoice.AUTO
    release: str = ""
