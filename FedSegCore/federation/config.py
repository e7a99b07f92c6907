"""A federation in one file: group × aggregation × augmentation × network (METHODS §5)."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from FedSegCore.augmentation.config import AugmentationConfig
from FedSegCore.common.errors import BadInputError
from FedSegCore.common.names import Name
from FedSegCore.common.toml_file import read_toml
from FedSegCore.learning.config import TrainingConfig
from FedSegCore.learning.exchange import ExchangeConfig
from FedSegCore.learning.privacy import PrivacyRules
from FedSegCore.networks.config import NetworkConfig
from FedSegCore.volumes.labels import LabelContract
from FedSegCore.volumes.preprocessing import DEFAULT_PREPROCESSING, Preprocessing

TOGETHER = "all"
"""Name of the only group where all sites train one model."""


class AggregationConfig(BaseModel):
    """Which rule, by name, and its parameters.

    Attributes:
        rule: a name known to ``FedSegCore.federation.aggregation.registry`` (``"fedavg"``, ``"flames"`` …).
        options: the rule's own parameters, checked by the registry.
        extreme_update: an answer whose update is longer than this many times the median of the round's sites is left
            out, where three sites or more have answered; None leaves none out (``incoming``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,40}$")] = "flames"
    options: dict[str, Any] = {}
    extreme_update: Annotated[float, Field(ge=2.0, le=1e6)] | None = 10.0


class FederationConfig(BaseModel):
    """Everything the sites of a federation agree on.

    Attributes:
        name: the federation's name.
        grouping: ``"modality"``: one model per modality; ``"together"``: one model for all sites.
        contract: the labels.
        rounds: rounds per group.
        seed: seed of initial models and of everything sites draw.
        min_sites: sites a group waits for before a round starts.
        min_answers: usable answers without which a round has failed: nothing is made of fewer, and nothing of them is
            sent. No round starts with fewer sites.
        join_deadline_s: how long a group waits for ``min_sites`` before it goes on, or ends, with what it has.
        return_deadline_s: how long a group waits, after its last closed round, where no site is there at all or those
            that are may not train now: a site that pauses for a night or a weekend finds its group again.
        round_deadline_s: how long a round waits for its sites' answers.
        aggregation: the rule, the same for all groups.
        augmentation: default augmentation of the sites.
        training: local training.
        trainings: local training by group name, in place of ``training`` as a whole: what such a table leaves out has
            its default, not what ``training`` says.
        networks: network by group name (a modality, or ``"all"``); ``"default"`` serves the rest. ``out_channels`` is
            set from the contract and ``in_channels`` from the preprocessing.
        privacy: what sites' answers must obey beside each site's own policy, which counts where it is stricter.
        exchange: in which form models and updates travel.
        preprocessing: by modality; modalities not named use ``DEFAULT_PREPROCESSING``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    grouping: Literal["modality", "together"] = "modality"
    contract: LabelContract
    rounds: Annotated[int, Field(ge=1, le=10_000)] = 50
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    min_sites: Annotated[int, Field(ge=1, le=100_000)] = 1
    min_answers: Annotated[int, Field(ge=1, le=100_000)] = 1
    join_deadline_s: Annotated[float, Field(gt=0.0)] = 600.0
    return_deadline_s: Annotated[float, Field(gt=0.0)] = 259_200.0
    round_deadline_s: Annotated[float, Field(gt=0.0)] = 3600.0
    aggregation: AggregationConfig = AggregationConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    training: TrainingConfig = TrainingConfig()
    trainings: dict[str, TrainingConfig] = {}
    networks: dict[str, NetworkConfig] = {"default": NetworkConfig()}
    privacy: PrivacyRules = PrivacyRules()
    exchange: ExchangeConfig = ExchangeConfig()
    preprocessing: dict[str, Preprocessing] = {}

    @model_validator(mode="after")
    def _preprocessing_keys_agree(self) -> Self:
        for modality, given in self.preprocessing.items():
            if given.modality != modality:
                raise ValueError(f"preprocessing.{modality} is written for modality {given.modality}")
        return self

    def group_of(self, modality: str) -> str:
        """Return the name of the group that a site of ``modality`` belongs to."""
        return TOGETHER if self.grouping == "together" else modality

    def preprocessing_of(self, modality: str) -> Preprocessing:
        """Return how images of ``modality`` are prepared; raises BadInputError for an unknown modality."""
        if not self.serves(modality):
            raise BadInputError(
                "federation.modality-unknown",
                f"The federation does not say how {modality} images are prepared.",
                "Ask the coordinator to add this modality under [preprocessing].",
            )
        return {**DEFAULT_PREPROCESSING, **self.preprocessing}[modality]

    def serves(self, modality: str) -> bool:
        """Return whether the federation says how images of ``modality`` are prepared.

        Where all sites train one model, only modalities with that model's channels are served.
        """
        known = {**DEFAULT_PREPROCESSING, **self.preprocessing}
        named = next(iter(self.preprocessing.values()), DEFAULT_PREPROCESSING["CT"])
        fits = self.grouping != "together" or (modality in known and known[modality].channels == named.channels)
        return modality in known and fits

    @property
    def modalities(self) -> tuple[str, ...]:
        """All modalities that the federation serves."""
        return tuple(name for name in {**DEFAULT_PREPROCESSING, **self.preprocessing} if self.serves(name))

    def training_of(self, group: str) -> TrainingConfig:
        """Return how sites of ``group`` train."""
        return self.trainings.get(group, self.training)

    def network_of(self, group: str, modality: str) -> NetworkConfig:
        """Return the network of ``group`` with its channels set from the contract and the preprocessing."""
        chosen = self.networks.get(group) or self.networks.get("default") or NetworkConfig()
        channels = {
            "in_channels": self.preprocessing_of(modality).channels,
            "out_channels": len(self.contract.labels) + 1,
        }
        return chosen.model_copy(update=channels)

    def possible_networks(self) -> list[NetworkConfig]:
        """Return every network that ``network_of`` can give for the modalities the federation serves, each once."""
        networks: list[NetworkConfig] = []
        for modality in self.modalities:
            network = self.network_of(self.group_of(modality), modality)
            networks += [network] if network not in networks else []
        return networks


def read_federation_config(path: Path) -> FederationConfig:
    """Read and check a federation's TOML file.

    Raises:
        BadInputError: as ``common.toml_file.read_toml``, ``config_checks.check_federation`` and ``check_parts``.
    """
    # the rules' options are written against this module
    from FedSegCore.federation.config_checks import check_federation, check_parts

    config = read_toml(path, FederationConfig, "federation")
    check_federation(config)
    check_parts(config)
    return config
