"""Flower's own strategies as aggregation rules.

The strategies do the mathematics; sampling, waiting and failures stay with the federation's loop. A strategy lives for
one round here: what it must remember (first and second moments, momentum) is handed to it and taken back as the rule's
state. Flower needs all updates of a round in memory at once.
"""

import inspect
import time
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, Metadata, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower

from FedSegCore.common.errors import BadInputError
from FedSegCore.federation.aggregation.folding import is_averaged
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
)
"""Strategies whose server side works on models and example counts alone. FedProx's term is the sites' work
(``training.proximal``); its server side is FedAvg."""

_ARGUMENTS = frozenset(
    {
        "beta",
        "beta_1",
        "beta_2",
        "eta",
        "eta_l",
        "num_malicious_nodes",
        "num_nodes_to_select",
        "proximal_mu",
        "server_learning_rate",
        "server_momentum",
        "tau",
    }
)
_ROUND = "flower/round"
_DICTS = ("m_t", "v_t")
_LIST = "momentum_vector"


class FlowerStrategy(StoringRule):
    """One of ``STRATEGIES`` behind the rule protocol.

    Args:
        name: the strategy.
        arguments: its numbers (``eta``, ``beta``, ``num_malicious_nodes`` …).
        clipping_norm: with ``noise_multiplier``, Flower's central differential privacy with fixed clipping around it:
            every site's update is clipped to this norm, and Gaussian noise is added at the server.
        noise_multiplier: noise per clipping norm.

    Raises:
        BadInputError: ``federation.rule-options``: unknown strategy or argument.
    """

    def __init__(
        self,
        name: str,
        arguments: Mapping[str, float | int] | None = None,
        clipping_norm: float | None = None,
        noise_multiplier: float | None = None,
    ) -> None:
        self._make: Callable[..., flower.Strategy] = getattr(flower, name) if name in STRATEGIES else _unknown(name)
        self._arguments = dict(arguments or {})
        odd = self._arguments.keys() - (_ARGUMENTS & inspect.signature(self._make).parameters.keys())
        if odd:
            raise BadInputError(
                "federation.rule-options", f"{name} has no {', '.join(sorted(odd))}.", "Correct arguments of the rule."
            )
        self._clipping = clipping_norm
        self._noise = noise_multiplier

    def _take(self, update: SiteUpdate) -> None:
        if self._clipping is not None and all(
            np.array_equal(update.weights[name], array) for name, array in self.model.items() if is_averaged(array)
        ):
            # Flower divides by the update's norm
            raise ValueError("the update is zero and cannot be clipped")
        super()._take(update)

    def _close(self) -> Aggregate:
        floats = {name: array for name, array in self.model.items() if is_averaged(array)}
        strategy = self._make(fraction_train=0.0, **self._arguments)
        number = int(self.state.get(_ROUND, np.zeros(()))) + 1
        _restore(strategy, self.state)
        outer = self._private(strategy)
        # with fraction_train 0 nothing is sampled; the strategy only learns the model of the round
        outer.configure_train(number, _record(floats), ConfigRecord(), None)
        record, _ = outer.aggregate_train(number, [self._reply(site, floats) for site in sorted(self._sites)])
        if record is None:
            return Aggregate(self.model, rule_state=self.state)
        made = {name: np.asarray(record[name].numpy(), dtype=array.dtype) for name, array in floats.items()}
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
                "metrics": MetricRecord({"num-examples": self.counts[site]}),
            }
        )
        return Message(content=content, metadata=_metadata())


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


def _restore(strategy: flower.Strategy, state: Arrays) -> None:
    for attribute in _DICTS:
        prefix = f"flower/{attribute}/"
        found = {key.removeprefix(prefix): array for key, array in state.items() if key.startswith(prefix)}
        if found:
            setattr(strategy, attribute, found)
    prefix = f"flower/{_LIST}/"
    numbered = sorted((int(key.removeprefix(prefix)), key) for key in state if key.startswith(prefix))
    if numbered:
        setattr(strategy, _LIST, [state[key] for _, key in numbered])


def _remember(strategy: flower.Strategy) -> dict[str, npt.NDArray[np.generic]]:
    kept: dict[str, npt.NDArray[np.generic]] = {}
    for attribute in _DICTS:
        for name, array in (getattr(strategy, attribute, None) or {}).items():
            kept[f"flower/{attribute}/{name}"] = np.asarray(array)
    for index, array in enumerate(getattr(strategy, _LIST, None) or []):
        kept[f"flower/{_LIST}/{index}"] = np.asarray(array)
    return kept
