"""Scans of a ball in air and tissue, and a release trained on a few of them in seconds."""

from pathlib import Path

import numpy as np
import torch

from FedSegCore.augmentation.config import AugmentationConfig
from FedSegCore.inference.weights import weights_of
from FedSegCore.learning.case import TrainingCase
from FedSegCore.learning.cohort import Cohort
from FedSegCore.learning.config import TrainingConfig
from FedSegCore.learning.results import RoundRequest
from FedSegCore.learning.task import TrainingTask
from FedSegCore.learning.trainer import LocalTrainer
from FedSegCore.models.release import publish_release
from FedSegCore.models.signing import load_or_make_key
from FedSegCore.networks.config import NetworkConfig
from FedSegCore.networks.registry import build_network
from FedSegCore.volumes.labels import CodedTerm, Label, LabelContract
from FedSegCore.volumes.preprocessing import Preprocessing
from FedSegCore.volumes.volume import Grid, Volume

CONTRACT = LabelContract(
    labels=(
        Label(name="ball", value=1, type=CodedTerm(code="10200004", meaning="Liver"), colour=(221, 130, 101)),
        Label(name="nowhere", value=2, type=CodedTerm(code="78961009", meaning="Spleen"), colour=(157, 108, 162)),
    )
)
CT = Preprocessing(modality="CT", spacing=(3.0, 3.0, None), window=(-160.0, 240.0))
PATCH = (1, 32, 32)
AXIAL = np.eye(3)


def centred(shape: tuple[int, int, int], spacing=(3.0, 3.0, 6.0), direction=AXIAL) -> Grid:
    """A grid whose middle is the world's origin, so that the ball is in every turned copy."""
    middle = (np.array(shape[::-1]) - 1) / 2 * np.array(spacing)
    origin = -(np.asarray(direction) @ middle)
    return Grid(shape, tuple(map(float, spacing)), tuple(map(float, origin)), tuple(np.ravel(direction).tolist()))


def ball_scan(grid: Grid, seed: int = 0, radius_mm: float = 24.0, centre=(6.0, -6.0, 0.0)) -> tuple[Volume, np.ndarray]:
    """CT in HU: air, a block of tissue of 0 HU with noise, in it a ball of 150 HU; and the ball's mask (k, j, i)."""
    rng = np.random.default_rng(seed)
    k, j, i = np.indices(grid.shape).reshape(3, -1)
    world = (grid.affine() @ np.stack([i, j, k, np.ones_like(i)]))[:3].T
    body = (np.abs(world) < (44.0, 40.0, 200.0)).all(1)
    ball = np.linalg.norm(world - np.array(centre), axis=1) < radius_mm
    hu = np.where(ball, 150.0, np.where(body, 0.0, -1000.0)) + rng.normal(0, 20, len(world))
    return Volume(hu.reshape(1, *grid.shape).astype(np.int16), grid, "CT"), ball.reshape(grid.shape)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2.0 * float((one & other).sum()) / float(one.sum() + other.sum())


def train_release(folder: Path) -> Path:
    """Train a 2-D U-Net of two levels on four balls for a few seconds, and publish it."""
    network = NetworkConfig(dimensions=2, out_channels=3, options={"channels": [8, 16, 32]})
    training = TrainingConfig(
        batch_size=4, patch_size=PATCH, steps_per_round=60, learning_rate=1e-2, validate_received=False
    )
    task = TrainingTask(
        contract=CONTRACT,
        network=network,
        preprocessing=CT,
        training=training,
        augmentation=AugmentationConfig(gin=None),
    )
    cases = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        image, ball = ball_scan(
            centred((8, 32, 32)), seed, radius_mm=float(rng.uniform(14, 26)), centre=(*rng.uniform(-12, 12, 2), 0.0)
        )
        labels = Volume(ball[None].astype(np.uint8), image.grid)
        cases.append(TrainingCase(f"{seed}", f"{seed}", image, labels, (1, 2)))
    torch.manual_seed(0)
    weights = weights_of(build_network(network))
    trainer = LocalTrainer(task, Cohort.prepare(cases, [], CT, CONTRACT), site="test")
    trained = trainer.train_round(weights, RoundRequest(1, 1, 0)).weights
    return publish(folder, "ball-CT", {"CT": CT}, trained, network)


def publish(folder: Path, name: str, modalities: dict, weights, network: NetworkConfig, patch=PATCH) -> Path:
    fields = {
        "name": name,
        "modalities": modalities,
        "contract": CONTRACT,
        "network": network,
        "patch_size": patch,
        "federation": "test",
        "rule": "fedavg",
        "rounds": 1,
    }
    return publish_release(folder, fields, weights, load_or_make_key(folder.parent / "coordinator.key"))
