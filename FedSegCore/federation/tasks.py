"""What a federation asks of a site of a modality."""

from collections.abc import Sequence

from FedSegCore.federation.config import FederationConfig
from FedSegCore.learning.lesion_sizes import with_pooled_sizes
from FedSegCore.learning.task import TrainingTask


def training_task(config: FederationConfig, modality: str, lesion_counts: Sequence[int] = ()) -> TrainingTask:
    """Return the training task of sites of ``modality``.

    Args:
        config: the federation.
        modality: of the site.
        lesion_counts: lesion sizes of the group's sites, for FedGS; empty as long as they are not known.

    Raises:
        BadInputError: ``federation.modality-unknown``.
    """
    group = config.group_of(modality)
    return TrainingTask(
        contract=config.contract,
        network=config.network_of(group, modality),
        preprocessing=config.preprocessing_of(modality),
        training=with_pooled_sizes(config.training_of(group), lesion_counts),
        augmentation=config.augmentation,
    )
