"""What one site trains: everything of a federation that a site's trainer needs, without torch."""

from pydantic import BaseModel, ConfigDict

from FedSegCore.augmentation.config import AugmentationConfig
from FedSegCore.learning.config import TrainingConfig
from FedSegCore.networks.config import NetworkConfig
from FedSegCore.volumes.labels import LabelContract
from FedSegCore.volumes.preprocessing import Preprocessing


class TrainingTask(BaseModel):
    """The task of a site in its group.

    Attributes:
        contract: the labels.
        network: with its channels set.
        preprocessing: of the site's modality.
        training: how a round trains.
        augmentation: what is done to training images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    contract: LabelContract
    network: NetworkConfig
    preprocessing: Preprocessing
    training: TrainingConfig
    augmentation: AugmentationConfig
