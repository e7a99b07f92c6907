"""What must agree between the parts of a federation's configuration; said when it is read, not in the first round."""

from FedSegCore.common.errors import BadInputError
from FedSegCore.federation.aggregation.registry import build_rule
from FedSegCore.federation.config import TOGETHER, FederationConfig
from FedSegCore.learning.config import TrainingConfig
from FedSegCore.networks.config import NetworkConfig


def check_federation(config: FederationConfig) -> None:
    """Check that the rule exists, its options fit, and the sites are told to send what it needs.

    Raises:
        BadInputError: ``federation.rule-unknown``, ``federation.rule-options``, ``federation.fedgs-off``.
    """
    build_rule(config.aggregation)
    needs_fedgs = config.aggregation.rule == "fedgs" or config.aggregation.options.get("update") == "fedgs"
    if needs_fedgs and any(training.fedgs is None for training in _trainings(config)):
        raise BadInputError(
            "federation.fedgs-off",
            "The aggregation needs FedGS updates, and sites are not told to send them.",
            "Add a [training.fedgs] table.",
        )


def check_parts(config: FederationConfig) -> None:
    """Check what sites would refuse in their first round: networks, losses, schedules, patches, names of lesions.

    Unlike ``check_federation`` this imports torch.

    Raises:
        BadInputError: ``network.*``, ``loss.*``, ``schedule.unknown``, ``fedgs.label-unknown``, ``training.task``,
            ``federation.batch-norm-policy``.
    """
    from FedSegCore.federation.aggregation.batch_norm import no_policy
    from FedSegCore.networks.registry import size_multiple

    networks = list(config.networks.values())
    for network in networks:
        size_multiple(network)
        if network.options.get("norm") == "batch" and not config.aggregation.options.get("batch_norm"):
            raise no_policy()
    for training in _trainings(config):
        _check_training(config, training, networks)


def _trainings(config: FederationConfig) -> list[TrainingConfig]:
    if config.grouping == "together":
        return [config.training_of(TOGETHER)]
    return [config.training, *config.trainings.values()]


def _check_training(config: FederationConfig, training: TrainingConfig, networks: list[NetworkConfig]) -> None:
    from FedSegCore.learning.fedgs import check_lesion_labels
    from FedSegCore.learning.losses import build_loss
    from FedSegCore.learning.schedules import Moment, learning_rate

    build_loss(training.loss, training.loss_options)
    learning_rate(training, Moment(1, config.rounds))
    for lesions in (training.fedgs, training.oversampling):
        if lesions is not None:
            check_lesion_labels(lesions.labels, config.contract)
    if networks and training.patch_size[0] != 1 and all(network.dimensions == 2 for network in networks):
        raise BadInputError(
            "training.task",
            "The training task does not fit together: a 2-D network needs a patch size (1, j, i).",
            "Correct the task.",
        )
