"""Orders of a server that wants this or that."""

from tiny_deployment import tiny_federation

from FedSegCore.federation.tasks import training_task
from FedSegCore.learning.task import TrainingTask


def task_with(training: dict[str, object]) -> TrainingTask:
    """Return a tiny CT task whose training has these settings."""
    return training_task(tiny_federation(training=training), "CT")
