"""What must agree between the parts of a federation's configuration; said when it is read, not in the first round."""

from FedSegCore.common.errors import BadInputError
from FedSegCore.federation.aggregation.registry import build_rule
from FedSegCore.federation.config import TOGETHER, FederationConfig


def check_federation(config: FederationConfig) -> None:
    """Check that the rule exists, its options fit, and the sites are told to send what it needs.

    Raises:
        BadInputError: ``federation.rule-unknown``, ``federation.rule-options``, ``federation.fedgs-off``.
    """
    build_rule(config.aggregation)
    needs_fedgs = config.aggregation.rule == "fedgs" or config.aggregation.options.get("update") == "fedgs"
    together = config.grouping == "together"
    trainings = [config.training_of(TOGETHER)] if together else [config.training, *config.trainings.values()]
    if needs_fedgs and any(training.fedgs is None for training in trainings):
        raise BadInputError(
            "federation.fedgs-off",
            "The aggregation needs FedGS updates, and sites are not told to send them.",
            "Add a [training.fedgs] table.",
        )
