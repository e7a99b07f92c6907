"""A generated patient on disk is the same patient, in every format."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import SimpleITK

from FedSegCore.phantoms.patient_files import write_patient
from FedSegCore.phantoms.torso import make_patient


@pytest.mark.parametrize("suffix", [".nrrd", ".nii.gz"])
@pytest.mark.parametrize("modality", ["CT", "MR", "US"])
def test_what_is_written_is_what_was_made(tmp_path: Path, modality: str, suffix: Literal[".nrrd", ".nii.gz"]) -> None:
    phantom = make_patient(modality, 5, size="test")
    files = write_patient(tmp_path / "site", "case-1", phantom, suffix=suffix)
    assert sorted(p.name for p in (tmp_path / "site").iterdir()) == [f"case-1-labels{suffix}", f"case-1{suffix}"]
    for path, volume in ((files.image, phantom.image), (files.labels, phantom.labels)):
        read = SimpleITK.ReadImage(str(path))
        array = SimpleITK.GetArrayFromImage(read)
        np.testing.assert_array_equal(np.squeeze(array), np.squeeze(volume.array))
        assert array.dtype == volume.array.dtype
        np.testing.assert_allclose(read.GetSpacing(), volume.grid.spacing, rtol=1e-5)
        np.testing.assert_allclose(read.GetOrigin(), volume.grid.origin, atol=1e-3)
        np.testing.assert_allclose(read.GetDirection(), volume.grid.direction, atol=1e-5)
