"""A tiny prepared cohort: two kinds of box in noise, one bright and one dim."""

import numpy as np
import torch

from FedSegCore.augmentation.config import AugmentationConfig, GinConfig, SpatialConfig
from FedSegCore.inference.weights import weights_of
from FedSegCore.learning.cohort import Cohort, PreparedCase
from FedSegCore.learning.config import TrainingConfig
from FedSegCore.learning.task import TrainingTask
from FedSegCore.networks.config import NetworkConfig
from FedSegCore.networks.registry import build_network
from FedSegCore.volumes.labels import CodedTerm, Label, LabelContract
from FedSegCore.volumes.preprocessing import Preprocessing
from FedSegCore.volumes.volume import Grid

CONTRACT = LabelContract(
    labels=(
        Label(name="bright", value=1, type=CodedTerm(code="1", meaning="Bright"), colour=(255, 255, 0)),
        Label(name="dim", value=2, type=CodedTerm(code="2", meaning="Dim"), colour=(0, 0, 255)),
    )
)
CT = Preprocessing(modality="CT", window=(-160.0, 240.0))
QUIET = AugmentationConfig(spatial=None, gin=None)


def blob_case(
    seed: int, shape: tuple[int, int, int] = (6, 32, 32), annotated: tuple[int, ...] = (1, 2)
) -> PreparedCase:
    """A box of 0.9 (label 1) and one of 0.1 (label 2), somewhere in noise around 0.5."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0.5, 0.05, shape)
    labels = np.zeros(shape, np.uint8)
    for value, level in ((1, 0.9), (2, 0.1)):
        box = tuple(
            slice(start, start + side)
            for side, start in ((max(2, n // 3), int(rng.integers(0, n - max(2, n // 3) + 1))) for n in shape)
        )
        image[box], labels[box] = level, value
    labels[~np.isin(labels, annotated)] = 0
    image = np.clip(image, 0, 1).astype(np.float16)[None]
    return PreparedCase(f"case-{seed}", f"patient-{seed}", image, labels, Grid(shape, (1.5, 1.5, 3.0)), annotated)


def blob_cohort(training: int = 3, validation: int = 1, **settings: object) -> Cohort:
    cases = [blob_case(seed, **settings) for seed in range(training + validation)]  # type: ignore[arg-type]
    return Cohort(tuple(cases[:training]), tuple(cases[training:]))


def blob_task(
    dimensions: int = 2,
    augmentation: AugmentationConfig | None = None,
    options: dict[str, object] | None = None,
    **training: object,
) -> TrainingTask:
    settings = {
        "batch_size": 4,
        "patch_size": (1, 32, 32) if dimensions == 2 else (8, 16, 16),
        "steps_per_round": 6,
        "learning_rate": 5e-3,
        "final_learning_rate": 1e-3,
        **training,
    }
    return TrainingTask(
        contract=CONTRACT,
        network=NetworkConfig(dimensions=dimensions, out_channels=3, options={"channels": [8, 16], **(options or {})}),
        preprocessing=CT,
        training=TrainingConfig.model_validate(settings),
        augmentation=augmentation or AugmentationConfig(spatial=SpatialConfig(), gin=GinConfig()),
    )


def fresh(task: TrainingTask) -> dict[str, np.ndarray]:
    """First weights of the task's network, always the same."""
    torch.manual_seed(3)
    return weights_of(build_network(task.network))
