"""Weights in and out of a network as plain NumPy arrays, checked before anything is changed."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from FedSegCore.common.errors import BadInputError
from FedSegCore.networks.config import NetworkConfig
from FedSegCore.networks.registry import build_network

Weights = Mapping[str, npt.NDArray[np.generic]]


def load_weights(network: nn.Module, weights: Weights) -> None:
    """Copy ``weights`` into ``network``; an error leaves the network as it was.

    Args:
        network: on any device.
        weights: state-dict name → array; names, shapes and kinds of number must be the network's own. Floats of another
            precision are converted.

    Raises:
        BadInputError: ``weights.names-differ``, ``weights.shape-differs``, ``weights.type-differs``,
            ``weights.not-finite``.
    """
    own = network.state_dict()
    _require_fit(own, weights)
    for name, tensor in own.items():
        if tensor.is_floating_point() and not np.isfinite(weights[name]).all():
            raise _refusal("not-finite", f"{name} holds values that are not numbers")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(torch.from_numpy(np.ascontiguousarray(weights[name]).reshape(tensor.shape)))


def check_fits(config: NetworkConfig, weights: Weights) -> None:
    """Check that ``weights`` are those of a network before it is built: one that does not fit may be of any size.

    Raises:
        BadInputError: ``weights.names-differ``, ``weights.shape-differs``, ``weights.type-differs``; as
            ``build_network``.
    """
    # tensors on the meta device have a shape and take no memory
    with torch.device("meta"):
        own = build_network(config).state_dict()
    _require_fit(own, weights)


def weights_of(network: nn.Module) -> dict[str, npt.NDArray[np.generic]]:
    """Return a copy of the network's parameters and buffers as state-dict name → array."""
    return {name: np.array(tensor.detach().cpu().numpy(), order="C") for name, tensor in network.state_dict().items()}


def _require_fit(own: Mapping[str, torch.Tensor], weights: Weights) -> None:
    if set(own) != set(weights):
        odd = sorted(set(own) ^ set(weights))
        raise _refusal("names-differ", f"{len(odd)} tensors are missing or too many, {odd[0][:80]!r} among them")
    for name, tensor in own.items():
        array = weights[name]
        if tuple(array.shape) != tuple(tensor.shape):
            raise _refusal("shape-differs", f"{name} is {array.shape}, the network's is {tuple(tensor.shape)}")
        if (array.dtype.kind == "f") != tensor.is_floating_point():
            raise _refusal("type-differs", f"{name} holds {array.dtype} values")


def _refusal(reason: str, what: str) -> BadInputError:
    return BadInputError(
        f"weights.{reason}",
        f"The weights do not fit the network: {what}.",
        "Use the weights together with the configuration they were made for.",
    )
