"""The model a group starts from: made at the server from the federation's seed."""

import numpy as np
import numpy.typing as npt

from FedSegCore.networks.config import NetworkConfig


def initial_model(network: NetworkConfig, seed: int) -> dict[str, npt.NDArray[np.generic]]:
    """Return the state dict of a freshly initialised network as arrays; torch's global generator is left as it was.

    Args:
        network: the network, with its channels set.
        seed: the same seed gives the same model.
    """
    # imported when used: torch takes seconds and client apps must start without it
    import torch

    from FedSegCore.networks.registry import build_network

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = build_network(network).state_dict()
    return {name: tensor.detach().cpu().numpy() for name, tensor in state.items()}
