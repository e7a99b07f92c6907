from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def releases(tmp_path_factory) -> Path:
    """A folder with one release, trained here, that finds balls in CT."""
    from blob_scans import train_release

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("federation") / "releases"
    train_release(folder)
    torch.set_num_threads(before)
    return folder
