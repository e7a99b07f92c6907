"""One desktop for all tests of this folder, where slicer-core and PySide6 are installed."""

import importlib.util
import os
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MISSING = [name for name in ("slicer", "PySide6", "trame_slicer") if importlib.util.find_spec(name) is None]
_temporary = tempfile.TemporaryDirectory(prefix="fedseg-slicer-tests-", ignore_cleanup_errors=True)

if not MISSING:
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    sys.path[:0] = [str(ROOT / "FedSegSlicer"), str(Path(__file__).parent)]
    from host import application, pythonqt

    application.start(Path(_temporary.name))
    from federation_helpers_desktop import invitation, open_federation  # noqa: F401
    from panel_helpers import kept_session, open_panel  # noqa: F401
    from see_panel import open_see_panel  # noqa: F401
    from slice_views import main_window  # noqa: F401


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Tests of this folder import the module's code, which needs the desktop: without it they cannot be collected."""
    if MISSING and collection_path.name.startswith("test_") and collection_path.name != "test_packaging.py":
        config.issue_config_time_warning(
            pytest.PytestWarning(f"{collection_path.name} is left out: {', '.join(MISSING)} not installed"), 2
        )
        return True
    return None


@pytest.fixture(autouse=True)
def clean_desktop():
    """Begin with an empty scene and fresh settings; fail if an error was raised in a slot."""
    if MISSING:
        yield
        return
    import qt
    import slicer

    slicer.mrmlScene.Clear(False)
    qt.QSettings().clear()
    pythonqt.slot_errors.clear()
    yield
    slicer.app.close_modules()
    slicer.app.processEvents()
    slicer.mrmlScene.Clear(False)
    assert not pythonqt.slot_errors, f"raised in a slot: {pythonqt.slot_errors}"
    assert slicer.app.paused == 0, "the views are not drawn any more"


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with small signed releases of untrained networks: CT in two versions, MR in one.

    The first CT version works on fine voxels and takes a few seconds, the others on coarse ones and take a moment.
    """
    import torch
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from FedSegCore.models.release import publish_release
    from FedSegCore.networks.config import NetworkConfig
    from FedSegCore.networks.registry import build_network
    from FedSegCore.phantoms.torso import TORSO_CONTRACT
    from FedSegCore.volumes.preprocessing import DEFAULT_PREPROCESSING

    folder = tmp_path_factory.mktemp("releases")
    key = Ed25519PrivateKey.generate()
    config = NetworkConfig(
        out_channels=len(TORSO_CONTRACT.labels) + 1, options={"channels": (4, 8, 8), "residual_units": 0}
    )
    coarse = {"spacing": (6.0, 6.0, 6.0)}
    for name, modality, seed, change in (
        ("tiny-CT", "CT", 1, {}), ("tiny-CT", "CT", 2, coarse), ("tiny-MR", "MR", 3, coarse)
    ):  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = build_network(config)
        fields = {
            "name": name,
            "modalities": {modality: DEFAULT_PREPROCESSING[modality].model_copy(update=change)},
            "contract": TORSO_CONTRACT,
            "network": config,
            "patch_size": (32, 64, 64),
            "federation": "tests",
            "rule": "fedavg",
            "rounds": 1,
        }
        publish_release(folder, fields, {n: t.numpy() for n, t in network.state_dict().items()}, key)
    return folder


@pytest.fixture(scope="session")
def patients(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return generated patients' images and labels: ``CT``, ``CT.labels``, ``MR``, ``MR.labels`` as NRRD files."""
    from FedSegCore.phantoms.torso import TORSO_CONTRACT, make_patient
    from FedSegCore.volumes.segmentation_file import write_segmentation
    from FedSegCore.volumes.writing import write_volume

    folder = tmp_path_factory.mktemp("patients")
    files = {}
    for modality in ("CT", "MR"):
        patient = make_patient(modality, 11, size="test")
        files[modality] = folder / f"{modality}.nii.gz"
        files[f"{modality}.labels"] = folder / f"{modality}.seg.nrrd"
        write_volume(patient.image, files[modality])
        write_segmentation(patient.labels, TORSO_CONTRACT.labels, files[f"{modality}.labels"])
    return files
