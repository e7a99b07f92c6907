"""The model a group starts from: made at the server from the federation's seed, or from pretrained weights too."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from FedSegCore.common.errors import BadInputError
from FedSegCore.federation.config import FederationConfig
from FedSegCore.networks.config import NetworkConfig

PRETRAINED_FILE = "pretrained.safetensors"
"""Where a run's folder keeps pretrained weights, if it was given some."""

_BEGIN_WITH_DENSENET = "flames_densenet_unet"


def initial_model(
    network: NetworkConfig, seed: int, pretrained: Path | None = None
) -> dict[str, npt.NDArray[np.generic]]:
    """Return the state dict of a freshly initialised network as arrays; torch's global generator is left as it was.

    Args:
        network: the network, with its channels set.
        seed: the same seed gives the same model.
        pretrained: weights of DenseNet-121 (safetensors), with which FLAMES's network begins; others do not use them.

    Raises:
        BadInputError: ``network.pretrained``.
    """
    # imported when used: torch takes seconds and client apps must start without it
    import torch

    from FedSegCore.networks.flames_unet import FlamesDenseNetUnet, load_densenet_weights
    from FedSegCore.networks.registry import build_network

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = build_network(network)
    if pretrained is not None and isinstance(made, FlamesDenseNetUnet):
        load_densenet_weights(made, pretrained)
    return {name: tensor.detach().cpu().numpy() for name, tensor in made.state_dict().items()}


def check_pretrained(config: FederationConfig, pretrained: Path) -> None:
    """Check that a federation has a network for DenseNet-121's weights and that ``pretrained`` holds them.

    Raises:
        BadInputError: ``network.pretrained``, ``network.pretrained-unused``.
    """
    fitting = [network for network in config.networks.values() if network.name == _BEGIN_WITH_DENSENET]
    if not fitting:
        raise BadInputError(
            "network.pretrained-unused",
            "No network of the federation begins with DenseNet-121.",
            f"Leave the pretrained weights out, or choose the network {_BEGIN_WITH_DENSENET!r}.",
        )
    for network in fitting:
        initial_model(network, config.seed, pretrained)
