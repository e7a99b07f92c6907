"""The demo's federation: FLAMES per modality with GIN, small enough for two cores."""

from FedSegCore.augmentation.config import AugmentationConfig, GinConfig, SpatialConfig
from FedSegCore.federation.config import AggregationConfig, FederationConfig
from FedSegCore.learning.config import TrainingConfig
from FedSegCore.networks.config import NetworkConfig
from FedSegCore.phantoms.torso import TORSO_CONTRACT
from FedSegCore.volumes.preprocessing import Preprocessing

_PREPROCESSING = {
    "CT": Preprocessing(modality="CT", spacing=(4.0, 4.0, 4.0), window=(-160.0, 240.0)),
    "MR": Preprocessing(modality="MR", spacing=(4.0, 4.0, None), percentiles=(0.5, 99.5)),
    "US": Preprocessing(modality="US", spacing=(1.4, 1.4, None), percentiles=(0.5, 99.5)),
}
_TRAINING = TrainingConfig(
    patch_size=(1, 96, 96),
    batch_size=12,
    steps_per_round=45,
    learning_rate=6e-3,
    final_learning_rate=5e-4,
    foreground_fraction=0.9,
)
_ULTRASOUND = _TRAINING.model_copy(update={"patch_size": (1, 160, 160), "batch_size": 6, "steps_per_round": 30})
_NETWORK = NetworkConfig(dimensions=2, options={"channels": [12, 24, 48, 96]})


def demo_federation(rounds: int, seed: int) -> FederationConfig:
    """Return the demo's federation. Its networks are 2-D: five of them train on two cores in minutes."""
    return FederationConfig(
        name="demo",
        grouping="modality",
        contract=TORSO_CONTRACT,
        rounds=rounds,
        seed=seed,
        join_deadline_s=120.0,
        return_deadline_s=120.0,
        round_deadline_s=300.0,
        aggregation=AggregationConfig(rule="flames"),
        augmentation=AugmentationConfig(
            spatial=SpatialConfig(rotation_degrees=10.0, scaling=0.1), gin=GinConfig(probability=0.5)
        ),
        training=_TRAINING,
        trainings={"US": _ULTRASOUND},
        networks={"default": _NETWORK},
        preprocessing=_PREPROCESSING,
    )
