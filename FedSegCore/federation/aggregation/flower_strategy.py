"""Flower's own strategies as aggregation rules.

The strategies do the mathematics; sampling, waiting and failures stay with the federation's loop. A strategy lives for
one round here: what it must remember (first and second moments, momentum) is handed to it and taken back as the rule's
state. Flower needs all updates of a round in memory at once.
"""

import inspect
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, Metadata, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from FedSegCore.common.errors import BadInputError
from FedSegCore.federation.aggregation.fedgs import trained_names
from FedSegCore.federation.aggregation.folding import WeightedSum, is_averaged
from FedSegCore.federation.aggregation.robust import StoringRule
from FedSegCore.federation.aggregation.rule import Aggregate, Arrays, SiteUpdate

STRATEGIES = (
    "Bulyan",
    "FedAdagrad",
    "FedAdam",
    "FedAvg",
    "FedAvgM",
    "FedMedian",
    "FedProx",
    "FedTrimmedAvg",
    "FedYogi",
    "Krum",
    "MultiKrum",
    "QFedAvg",
)
"""Strategies whose server side works on models, example counts and training losses alone. FedProx's term is the sites'
work (``training.proximal``); its server side is FedAvg."""

OPTIMISERS = ("FedAdagrad", "FedAdam", "FedAvgM", "FedYogi", "QFedAvg")
"""Those that take a step beyond what the sites sent, which would make a variance of BatchNorm negative."""

_Share = Annotated[float, Field(ge=0.0, lt=1.0)]
_Rate = Annotated[float, Field(gt=0.0, le=1e6)]


class _Arguments(BaseModel):
    """What the strategies' arguments may be; Flower itself finds out when a round of training is over."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    beta: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.0
    beta_1: _Share = 0.0
    beta_2: _Share = 0.0
    client_learning_rate: _Rate = 1.0
    eta: _Rate = 1.0
    eta_l: _Rate = 1.0
    num_malicious_nodes: Annotated[int, Field(ge=0, le=10_000)] = 0
    num_nodes_to_select: Annotated[int, Field(ge=1, le=10_000)] = 1
    q: Annotated[float, Field(ge=0.0, le=100.0)] = 0.0
    server_learning_rate: _Rate = 1.0
    server_momentum: _Share = 0.0
    tau: _Rate = 1.0


_ROUND = "flower/round"
_DICTS = ("m_t", "v_t")
_LIST = "momentum_vector"


class FlowerStrategy(StoringRule):
    """One of ``STRATEGIES`` behind the rule protocol.

    Running statistics (BatchNorm), which no optimiser steps, are the example-weighted mean where the strategy is one of
    ``OPTIMISERS`` and nothing is clipped; a variance that clipping's noise would make negative is 0.

    Args:
        name: the strategy.
        arguments: its numbers (``eta``, ``beta``, ``num_malicious_nodes`` …); QFedAvg must be given its
            ``client_learning_rate``, and needs the training losses of all sites.
        clipping_norm: with ``noise_multiplier``, Flower's central differential privacy with fixed clipping around it:
            every site's update is clipped to this norm, and Gaussian noise is added at the server.
        noise_multiplier: noise per clipping norm.

    Raises:
        BadInputError: ``federation.rule-options``: unknown strategy, or an argument that is unknown, missing or beyond
            its bounds.
    """

    def __init__(
        self,
        name: str,
        arguments: Mapping[str, float | int] | None = None,
        clipping_norm: float | None = None,
        noise_multiplier: float | None = None,
    ) -> None:
        self._make: Callable[..., flower.Strategy] = getattr(flower, name) if name in STRATEGIES else _unknown(name)
        self._arguments = _checked(name, self._make, arguments or {})
        self._name = name
        self._fewest = fewest_sites(name, self._arguments)
        self._losses: dict[str, float] = {}
        self._clipping = clipping_norm
        self._noise = noise_multiplier

    def _start(self) -> None:
        super()._start()
        self._losses = {}
        self._others = WeightedSum()
        statistics = {name for name, array in self.model.items() if is_averaged(array)} - trained_names(self.model)
        # where the server clips and adds noise, nothing goes past it
        self._aside = statistics if self._name in OPTIMISERS and self._clipping is None else set()

    def _take(self, update: SiteUpdate) -> None:
        if self._name == "QFedAvg" and (update.loss is None or update.loss < 0.0):
            raise ValueError("QFedAvg needs the site's training loss")
        if self._clipping is not None and all(
            np.array_equal(update.weights[name], array) for name, array in self.model.items() if is_averaged(array)
        ):
            # Flower divides by the update's norm
            raise ValueError("the update is zero and cannot be clipped")
        super()._take(update)
        self._losses[update.site] = update.loss or 0.0
        if update.num_examples > 0:
            self._others.add({name: update.weights[name] for name in self._aside}, update.num_examples)

    def _close(self) -> Aggregate:
        if len(self._sites) < self._fewest:
            raise ValueError(f"{self._name} needs {self._fewest} answers, {len(self._sites)} were of use")
        floats = {name: array for name, array in self.model.items() if is_averaged(array) and name not in self._aside}
        number = int(self.state.get(_ROUND, np.zeros(()))) + 1
        with _flower_silent():
            strategy = self._make(fraction_train=0.0, **self._arguments)
            _restore(strategy, self.state, floats.keys())
            outer = self._private(strategy)
            # with fraction_train 0 nothing is sampled; the strategy only learns the model of the round
            outer.configure_train(number, _record(floats), ConfigRecord(), None)
            record, _ = outer.aggregate_train(number, [self._reply(site, floats) for site in sorted(self._sites)])
        if record is None:
            return Aggregate(self.model, rule_state=self.state)
        made = {name: np.asarray(record[name].numpy(), dtype=array.dtype) for name, array in floats.items()}
        made |= self._others.mean(self.model)
        made |= {name: np.maximum(array, 0) for name, array in made.items() if name.endswith("running_var")}
        return Aggregate(self._whole(made), rule_state={_ROUND: np.asarray(number), **_remember(strategy)})

    def _private(self, strategy: flower.Strategy) -> flower.Strategy:
        if self._clipping is None or self._noise is None:
            return strategy
        return flower.DifferentialPrivacyServerSideFixedClipping(
            strategy, self._noise, self._clipping, len(self._sites)
        )

    def _reply(self, site: str, floats: Arrays) -> Message:
        arrays = self.store[site]
        content = RecordDict(
            {
                "arrays": _record({name: arrays[name] for name in floats}),
                "metrics": MetricRecord({"num-examples": self.counts[site], "train_loss": self._losses[site]}),
            }
        )
        return Message(content=content, metadata=_metadata())


@contextmanager
def _flower_silent() -> Iterator[None]:
    """Keep back what Flower tells those whose rounds it runs; of ours it is wrong ("training will be skipped")."""
    here = threading.get_ident()

    def kept(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR or record.thread != here

    log = logging.getLogger("flwr")
    log.addFilter(kept)
    try:
        yield
    finally:
        log.removeFilter(kept)


def fewest_sites(name: str, arguments: Mapping[str, float | int]) -> int:
    """Return how many answers a strategy needs to make anything of them."""
    return 4 * int(arguments.get("num_malicious_nodes", 0)) + 3 if name == "Bulyan" else 1


def _checked(
    name: str, make: Callable[..., flower.Strategy], arguments: Mapping[str, float | int]
) -> dict[str, float | int]:
    takes = inspect.signature(make).parameters
    known = _Arguments.model_fields.keys() & takes.keys()
    missing = {key for key in known if takes[key].default is inspect.Parameter.empty} - arguments.keys()
    problems = [f"{name} has no {key}" for key in sorted(arguments.keys() - known)]
    problems += [f"{name} needs {key}" for key in sorted(missing)]
    try:
        checked = _Arguments.model_validate({key: arguments[key] for key in known & arguments.keys()})
    except ValidationError as error:
        problems += [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
    if problems:
        remedy = "FedProx's μ is proximal under [training]." if name == "FedProx" else "Correct the rule's arguments."
        raise BadInputError("federation.rule-options", f"{'; '.join(problems)}.", remedy)
    return checked.model_dump(exclude_unset=True)


def _unknown(name: str) -> Callable[..., flower.Strategy]:
    raise BadInputError(
        "federation.rule-options", f"{name} is none of Flower's strategies here.", f"Use {', '.join(STRATEGIES)}."
    )


def _record(arrays: Arrays) -> ArrayRecord:
    return ArrayRecord({name: Array(np.asarray(array, order="C")) for name, array in arrays.items()})


def _metadata() -> Metadata:
    # the strategies read contents only; a message must have some metadata
    return Metadata(
        run_id=0,
        message_id="",
        src_node_id=0,
        dst_node_id=0,
        reply_to_message_id="",
        group_id="",
        created_at=time.time(),
        ttl=60.0,
        message_type="train",
    )


def _restore(strategy: flower.Strategy, state: Arrays, names: Collection[str]) -> None:
    """Give the strategy what it remembered of the tensors called ``names``, which are all it is given now."""
    for attribute in _DICTS:
        prefix = f"flower/{attribute}/"
        found = {name: state[prefix + name] for name in names if prefix + name in state}
        if found:
            setattr(strategy, attribute, found)
    prefix = f"flower/{_LIST}/"
    numbered = sorted((int(key.removeprefix(prefix)), key) for key in state if key.startswith(prefix))
    if len(numbered) == len(names):
        setattr(strategy, _LIST, [state[key] for _, key in numbered])


def _remember(strategy: flower.Strategy) -> dict[str, npt.NDArray[np.generic]]:
    kept: dict[str, npt.NDArray[np.generic]] = {}
    for attribute in _DICTS:
        for name, array in (getattr(strategy, attribute, None) or {}).items():
            kept[f"flower/{attribute}/{name}"] = np.asarray(array)
    for index, array in enumerate(getattr(strategy, _LIST, None) or []):
        kept[f"flower/{_LIST}/{index}"] = np.asarray(array)
    return kept
