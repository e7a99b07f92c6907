"""The models that a run's groups begin with, as they lie in the run's folder."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file
from tiny_deployment import tiny_federation

from FedSegCore.common.errors import BadInputError
from FedSegCore.federation.coordinator.folder import CoordinatorFolder
from FedSegCore.federation.coordinator.follow import write_run
from FedSegCore.federation.initial_model import initial_model, read_initial_model
from FedSegCore.federation.presets import read_preset
from FedSegCore.networks.config import NetworkConfig
from FedSegCore.networks.registry import build_network


def test_a_runs_first_models_are_drawn_when_it_is_written(coordinator: CoordinatorFolder) -> None:
    config = tiny_federation()
    run_folder = write_run(coordinator, "first", config)
    network = config.network_of("CT", "CT")
    found = read_initial_model(run_folder, network, config.seed)
    expected = initial_model(network, config.seed)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
    # written again, as by a second start, nothing is drawn anew; another seed has models of its own
    files = {path: path.stat().st_mtime_ns for path in (run_folder / "initial").iterdir()}
    write_run(coordinator, "first", config)
    assert {path: path.stat().st_mtime_ns for path in (run_folder / "initial").iterdir()} == files
    with pytest.raises(BadInputError) as caught:
        read_initial_model(run_folder, network, config.seed + 1)
    assert caught.value.code == "run.initial-model"
    for path in files:
        path.write_bytes(b"no model")
    with pytest.raises(BadInputError, match="begins with cannot be read"):
        read_initial_model(run_folder, network, config.seed)


def test_the_server_app_begins_without_torch(coordinator: CoordinatorFolder) -> None:
    run_folder = write_run(coordinator, "first", tiny_federation())
    code = (
        "import sys; from functools import partial; from pathlib import Path\n"
        "from FedSegCore.federation.server_app import FederationLoop, read_initial_model, read_run_config\n"
        "folder = Path(sys.argv[1]); model = partial(read_initial_model, folder)\n"
        "loop = FederationLoop(None, read_run_config(folder), folder, make_model=model)\n"
        "assert loop._first_state('CT', 'CT').model\n"
        "sys.exit(sum(name in sys.modules for name in ('torch', 'monai')))"
    )
    assert subprocess.run([sys.executable, "-c", code, run_folder], check=False, timeout=120).returncode == 0


def test_pretrained_weights_are_in_the_first_model_or_the_run_is_not_made(
    coordinator: CoordinatorFolder, tmp_path: Path
) -> None:
    network = build_network(NetworkConfig(name="flames_densenet_unet", dimensions=2, in_channels=3))
    weights = {f"features.{name}": tensor.contiguous() for name, tensor in network.state_dict().items()}
    file = tmp_path / "densenet121.safetensors"
    save_file(weights, file)
    preset = read_preset("flames")
    run_folder = write_run(coordinator, "begun", preset, file)
    first = read_initial_model(run_folder, preset.network_of("US", "US"), preset.seed)
    np.testing.assert_array_equal(first["transition1.conv.weight"], weights["features.transition1.conv.weight"])
    with pytest.raises(BadInputError, match="begins with DenseNet-121"):
        write_run(coordinator, "unused", read_preset("fedgin"), file)
    assert not (coordinator.runs / "unused").exists()
