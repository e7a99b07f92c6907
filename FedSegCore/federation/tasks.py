"""What a federation asks of a site of a modality."""

from FedSegCore.federation.config import FederationConfig
from FedSegCore.learning.task import TrainingTask


def training_task(config: FederationConfig, modality: str) -> TrainingTask:
    """Return the training task of sites of ``modality``; raises BadInputError ``federation.modality-unknown``."""
    group = config.group_of(modality)
    return TrainingTask(
        contract=config.contract,
        network=config.network_of(group, modality),
        preprocessing=config.preprocessing_of(modality),
        training=config.training_of(group),
        augmentation=config.augmentation,
    )
