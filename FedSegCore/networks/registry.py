"""Networks by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from pydantic import ValidationError

from FedSegCore.common.errors import BadInputError
from FedSegCore.common.validation import problems_of
from FedSegCore.networks import fedgin_unet, flames_unet, utnet
from FedSegCore.networks.config import NetworkConfig
from FedSegCore.networks.fedgin_unet import FedGinUnet, FedGinUnetOptions
from FedSegCore.networks.flames_unet import FlamesDenseNetUnet, FlamesUnetOptions
from FedSegCore.networks.options import NetworkOptions
from FedSegCore.networks.sd_utnet import SdUtnet
from FedSegCore.networks.unet import UnetOptions, build_unet, unet_multiple
from FedSegCore.networks.utnet import Utnet, UtnetOptions

OptionsT = TypeVar("OptionsT", bound=NetworkOptions)


@dataclass(frozen=True)
class NetworkKind(Generic[OptionsT]):
    """How a network of one name is made.

    Attributes:
        options: its options.
        build: ``build(dimensions, in_channels, out_channels, options)``.
        multiple: ``multiple(options, dimensions)``: what the sides of its input are padded to.
        dimensions: what it can work on.
    """

    options: type[OptionsT]
    build: Callable[[int, int, int, OptionsT], torch.nn.Module]
    multiple: Callable[[OptionsT, int], tuple[int, ...]]
    dimensions: tuple[int, ...] = (2,)


def _plane(
    options: type[OptionsT], network: Callable[[int, int, OptionsT], torch.nn.Module], multiple: tuple[int, int]
) -> NetworkKind[OptionsT]:
    """Return the kind of a network that exists in 2-D only."""

    def build(_dimensions: int, in_channels: int, out_channels: int, chosen: OptionsT) -> torch.nn.Module:
        return network(in_channels, out_channels, chosen)

    return NetworkKind(options, build, lambda _options, _dimensions: multiple)


_KINDS: Mapping[str, NetworkKind[Any]] = {
    "unet": NetworkKind(UnetOptions, build_unet, unet_multiple, (2, 3)),
    "fedgin_unet": _plane(FedGinUnetOptions, FedGinUnet, fedgin_unet.MULTIPLE),
    "flames_densenet_unet": _plane(FlamesUnetOptions, FlamesDenseNetUnet, flames_unet.MULTIPLE),
    "utnet": _plane(UtnetOptions, Utnet, utnet.MULTIPLE),
    "sd_utnet": _plane(UtnetOptions, SdUtnet, utnet.MULTIPLE),
}


def build_network(config: NetworkConfig) -> torch.nn.Module:
    """Return the network with fresh weights, drawn from torch's global generator (seed it first).

    It maps float32 (N, in_channels, [k,] j, i) of any size to logits (N, out_channels, [k,] j, i).

    Raises:
        BadInputError: ``network.unknown``, ``network.dimensions`` or ``network.options``.
    """
    kind, options = _resolve(config)
    return _checked(config, lambda: kind.build(config.dimensions, config.in_channels, config.out_channels, options))


def size_multiple(config: NetworkConfig) -> tuple[int, ...]:
    """Return what each side ([k,] j, i) is padded to a multiple of; patches of such sizes waste no work.

    Raises:
        BadInputError: as ``build_network``.
    """
    kind, options = _resolve(config)
    return _checked(config, lambda: kind.multiple(options, config.dimensions))


def forward_for_training(network: torch.nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits of ``images`` and the network's own scalar loss, to be added to the segmentation loss.

    Only SD-UTNet has a loss of its own; for all others it is 0.
    """
    if isinstance(network, SdUtnet):
        return network.forward_with_loss(images)
    logits = network(images)
    return logits, logits.new_zeros(())


def parameter_count(network: torch.nn.Module) -> int:
    """Return how many numbers training can change."""
    return sum(tensor.numel() for tensor in network.parameters() if tensor.requires_grad)


ResultT = TypeVar("ResultT")


def _checked(config: NetworkConfig, make: Callable[[], ResultT]) -> ResultT:
    try:
        return make()
    except ValueError as error:
        raise BadInputError(
            "network.options", f"Network {config.name!r}: {error}.", "Correct the network's options."
        ) from error


def _resolve(config: NetworkConfig) -> tuple[NetworkKind[Any], Any]:
    kind = _KINDS.get(config.name)
    if kind is None:
        raise BadInputError(
            "network.unknown", f"There is no network called {config.name!r}.", f"Choose one of {', '.join(_KINDS)}."
        )
    if config.dimensions not in kind.dimensions:
        raise BadInputError(
            "network.dimensions",
            f"Network {config.name!r} does not work in {config.dimensions}-D.",
            "Set dimensions to 2, or choose 'unet'.",
        )
    try:
        return kind, kind.options.model_validate(config.options)
    except ValidationError as error:
        raise BadInputError(
            "network.options", f"Network {config.name!r}: {problems_of(error)}.", "Correct the network's options."
        ) from error
