"""The model a group starts from: drawn from the federation's seed, or from pretrained weights too.

A run's models are drawn where the run is written, in a process that has torch anyhow: the server app reads them, and
starts in a second, at any restart.
"""

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError

from FedSegCore.common.errors import BadInputError
from FedSegCore.common.files import whole_file
from FedSegCore.federation.array_files import load_arrays, save_arrays
from FedSegCore.federation.config import FederationConfig
from FedSegCore.federation.private_files import private_folder
from FedSegCore.networks.config import NetworkConfig

INITIAL_FOLDER = "initial"
"""Where a run's folder keeps the models its groups may begin with."""

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


def write_initial_models(run_folder: Path, config: FederationConfig, pretrained: Path | None = None) -> None:
    """Write what any group of the federation may begin with; what is there already stays, but for new ``pretrained``.

    Args:
        run_folder: the run's.
        config: the federation.
        pretrained: as ``initial_model``.

    Raises:
        BadInputError: ``network.*``.
        CannotDoHereError: ``federation.disk``.
    """
    folder = private_folder(run_folder / INITIAL_FOLDER)
    for network in config.possible_networks():
        path = folder / _file_name(network, config.seed)
        if pretrained is not None or not path.exists():
            model = initial_model(network, config.seed, pretrained)
            with whole_file(path, private=True) as beside:
                save_arrays(beside, model)


def read_initial_model(run_folder: Path, network: NetworkConfig, seed: int) -> dict[str, npt.NDArray[np.generic]]:
    """Return what ``write_initial_models`` wrote for this network; raises BadInputError ``run.initial-model``."""
    try:
        return load_arrays(run_folder / INITIAL_FOLDER / _file_name(network, seed))
    except (OSError, SafetensorError) as error:
        raise BadInputError(
            "run.initial-model",
            "The model that the run begins with cannot be read.",
            f"Delete the run's folder {INITIAL_FOLDER!r} and start the run again with 'fedseg coordinator run'.",
        ) from error


def _file_name(network: NetworkConfig, seed: int) -> str:
    return hashlib.sha256(f"{seed} {network.model_dump_json()}".encode()).hexdigest()[:16] + ".safetensors"


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
