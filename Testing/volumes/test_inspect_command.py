"""``fedseg inspect`` through its real entry point."""

import json
import subprocess
import sys

import numpy as np
import SimpleITK as sitk


def fedseg(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "FedSegCore.cli.main", "inspect", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_json_is_the_last_line_of_stdout(tmp_path):
    image = sitk.GetImageFromArray(np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    image.SetSpacing((0.5, 0.6, 3.0))
    sitk.WriteImage(image, str(tmp_path / "scan.nrrd"))
    done = fedseg(str(tmp_path / "scan.nrrd"), "--json", "--modality", "MR")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["shape"] == [4, 3, 2]
    assert facts["spacing"] == [0.5, 0.6, 3.0]
    assert facts["modality"] == {"value": "MR", "confidence": 1.0, "reason": "you said so"}


def test_people_read_words_and_refusals_have_a_code(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(np.eye(9, dtype=np.uint8)[None]), str(tmp_path / "scan.nii.gz"))
    done = fedseg(str(tmp_path / "scan.nii.gz"))
    assert done.returncode == 0
    assert "9 x 9 x 1" in done.stderr
    data = (tmp_path / "scan.nii.gz").read_bytes()
    (tmp_path / "scan.nii.gz").write_bytes(data[:-9])
    done = fedseg(str(tmp_path / "scan.nii.gz"), "--json")
    assert done.returncode == 3
    assert "image.truncated" in done.stderr
    assert "Traceback" not in done.stderr
    assert str(tmp_path) not in done.stderr
    assert done.stdout == ""


def test_a_damaged_picture_does_not_speak_on_stdout(tmp_path):
    """JPEG decoders like to print; with --json stdout belongs to programs."""
    noise = np.random.default_rng(1).integers(0, 255, (40, 60)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(noise), str(tmp_path / "a.jpg"))
    data = (tmp_path / "a.jpg").read_bytes()
    at = data.index(b"\xff\xda") + 40
    for name, damaged in {"data": data[:at] + b"\xff\xc4\x01" + data[at:], "tail": data[:-300] + data[-2:]}.items():
        (tmp_path / f"{name}.jpg").write_bytes(damaged)
        done = fedseg(str(tmp_path / f"{name}.jpg"), "--json")
        assert done.returncode in (0, 3)
        lines = done.stdout.splitlines()
        assert len(lines) == (1 if done.returncode == 0 else 0)
        assert all(json.loads(line)["source"] == "jpeg" for line in lines)
