"""What must agree between the parts of a federation's configuration; said when it is read, not in the first round."""

from FedSegCore.common.errors import BadInputError
from FedSegCore.federation.aggregation.registry import build_rule
from FedSegCore.federation.config import TOGETHER, FederationConfig
from FedSegCore.learning.config import TrainingConfig


def check_federation(config: FederationConfig) -> None:
    """Check that everything named is used, the rule exists, its options fit, and the sites send what it needs.

    Raises:
        BadInputError: ``federation.group-unknown``, ``federation.channels``, ``federation.rule-unknown``,
            ``federation.rule-options``, ``federation.fedgs-off``, ``federation.fedprox-off``,
            ``federation.too-few-sites``.
    """
    _check_groups(config)
    _check_channels(config)
    build_rule(config.aggregation)
    if _uses_fedgs(config) and any(training.fedgs is None for training in _trainings(config)):
        raise BadInputError(
            "federation.fedgs-off",
            "The aggregation needs FedGS updates, and sites are not told to send them.",
            "Add a [training.fedgs] table.",
        )
    if config.aggregation.rule == "flower":
        _check_flower(config)


def _uses_fedgs(config: FederationConfig) -> bool:
    return config.aggregation.rule == "fedgs" or config.aggregation.options.get("update") == "fedgs"


def _check_groups(config: FederationConfig) -> None:
    groups = {TOGETHER} if config.grouping == "together" else set(config.modalities)
    named = [("trainings", name, groups) for name in config.trainings]
    named += [("networks", name, {*groups, "default"}) for name in config.networks]
    for table, name, known in named:
        if name not in known:
            raise BadInputError(
                "federation.group-unknown",
                f"There is no group {name!r}, so [{table}.{name}] would not be used.",
                f"Use one of {', '.join(sorted(known))}.",
            )


def _check_channels(config: FederationConfig) -> None:
    channels = {modality: given.channels for modality, given in config.preprocessing.items()}
    if config.grouping == "together" and len(set(channels.values())) > 1:
        told = ", ".join(f"{modality} {count}" for modality, count in channels.items())
        raise BadInputError(
            "federation.channels",
            f"One model cannot take images of different numbers of channels ({told}).",
            'Give all [preprocessing] the same channels, or set grouping = "modality".',
        )


def _check_flower(config: FederationConfig) -> None:
    from FedSegCore.federation.aggregation.flower_strategy import fewest_sites

    options = config.aggregation.options
    if options["strategy"] == "FedProx" and any(training.proximal == 0.0 for training in _trainings(config)):
        raise BadInputError(
            "federation.fedprox-off",
            "FedProx's term is the sites' work, and sites are not told to add it: this would be plain FedAvg.",
            "Set proximal, FedProx's μ, under [training].",
        )
    fewest = fewest_sites(options["strategy"], options.get("arguments", {}))
    if max(config.min_sites, config.min_answers) < fewest:
        raise BadInputError(
            "federation.too-few-sites",
            f"{options['strategy']} makes nothing of fewer than {fewest} answers.",
            f"Set min_answers to {fewest} or more, or choose another rule.",
        )


def check_parts(config: FederationConfig) -> None:
    """Check what sites would refuse in their first round (networks, losses, schedules, patches, names of lesions), and
    that what they are told to send is used.

    Unlike ``check_federation`` this imports torch, and is not asked of a run that goes on.

    Raises:
        BadInputError: ``network.*``, ``loss.*``, ``schedule.unknown``, ``fedgs.label-unknown``, ``training.task``,
            ``federation.batch-norm-policy``, ``federation.fedgs-unused``.
    """
    from FedSegCore.federation.aggregation.batch_norm import no_policy
    from FedSegCore.networks.registry import size_multiple

    for network in config.networks.values():
        size_multiple(network)
        if network.options.get("norm") == "batch" and not config.aggregation.options.get("batch_norm"):
            raise no_policy()
    for training in _trainings(config):
        _check_training(config, training)
    if not _uses_fedgs(config) and any(training.fedgs is not None for training in _trainings(config)):
        raise BadInputError(
            "federation.fedgs-unused",
            "Sites are told to weigh small lesions (FedGS), and the aggregation does not use what they would send.",
            'Set rule = "fedgs" under [aggregation], update = "fedgs" under its options where the rule is "flames", or '
            "leave [training.fedgs] out.",
        )
    for modality in config.modalities:
        _check_patch(config, modality)


def _trainings(config: FederationConfig) -> list[TrainingConfig]:
    if config.grouping == "together":
        return [config.training_of(TOGETHER)]
    return [config.training, *config.trainings.values()]


def _check_training(config: FederationConfig, training: TrainingConfig) -> None:
    from FedSegCore.learning.fedgs import check_lesion_labels
    from FedSegCore.learning.losses import build_loss
    from FedSegCore.learning.schedules import Moment, learning_rate

    build_loss(training.loss, training.loss_options)
    learning_rate(training, Moment(1, config.rounds))
    for lesions in (training.fedgs, training.oversampling):
        if lesions is not None:
            check_lesion_labels(lesions.labels, config.contract)


def _check_patch(config: FederationConfig, modality: str) -> None:
    group = config.group_of(modality)
    if config.network_of(group, modality).dimensions == 2 and config.training_of(group).patch_size[0] != 1:
        raise BadInputError(
            "training.task",
            f"The training task of {modality} does not fit together: a 2-D network needs a patch size (1, j, i).",
            f"Correct patch_size under [training] or [trainings.{group}], or the network.",
        )
