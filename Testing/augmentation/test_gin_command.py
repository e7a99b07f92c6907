"""``fedseg gin`` through its entry point."""

import json
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from FedSegCore.cli.main import main


def fedseg(monkeypatch, capsys, *arguments):
    """Run the command; return exit code, stdout, stderr."""
    monkeypatch.setattr(sys, "argv", ["fedseg", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    captured = capsys.readouterr()
    return caught.value.code, captured.out, captured.err


@pytest.fixture
def scan(tmp_path):
    """A small CT-like NIfTI: a soft-tissue ball with a dense core in air."""
    k, j, i = np.meshgrid(np.arange(10) - 5, np.arange(40) - 20, np.arange(44) - 22, indexing="ij")
    radius = np.sqrt((2 * k) ** 2 + j**2 + i**2)
    voxels = np.where(radius < 15, 60, -1000) + np.where(radius < 5, 120, 0)
    voxels = voxels + np.random.default_rng(0).normal(0, 10, voxels.shape)
    image = sitk.GetImageFromArray(voxels.astype(np.int16))
    image.SetSpacing((1.5, 1.5, 4.0))
    path = tmp_path / "scan.nii.gz"
    sitk.WriteImage(image, str(path))
    return path


def test_writes_the_picture_and_says_what_was_drawn(monkeypatch, capsys, scan, tmp_path):
    arguments = ("gin", scan, "--samples", 3, "--seed", 7, "--modality", "CT", "--json", "--out", tmp_path / "a.png")
    code, out, err = fedseg(monkeypatch, capsys, *arguments)
    assert code == 0
    told = json.loads(out.splitlines()[-1])
    assert (told["modality"], told["seed"], len(told["samples"])) == ("CT", 7, 3)
    assert all(0 <= sample["alpha"] <= 1 for sample in told["samples"])
    assert "3 samples" in err
    assert Image.open(tmp_path / "a.png").format == "PNG"
    again = (*arguments[:-1], tmp_path / "b.png")
    assert json.loads(fedseg(monkeypatch, capsys, *again)[1].splitlines()[-1]) == told
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    other = (*arguments[:5], 8, *arguments[6:])
    assert json.loads(fedseg(monkeypatch, capsys, *other)[1].splitlines()[-1])["samples"] != told["samples"]


def test_takes_a_single_picture_and_a_chosen_slice(monkeypatch, capsys, scan, tmp_path):
    pixels = (np.random.default_rng(0).random((64, 80)) * 255).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "us.png")
    picture = tmp_path / "out.png"
    code, _, _ = fedseg(
        monkeypatch, capsys, "gin", tmp_path / "us.png", "--modality", "US", "--samples", 1, "--out", picture
    )
    assert code == 0
    arguments = ("gin", scan, "--modality", "CT", "--samples", 1, "--slice", 2, "--dimensions", 2, "--json")
    code, out, _ = fedseg(monkeypatch, capsys, *arguments, "--out", picture)
    assert code == 0
    assert json.loads(out.splitlines()[-1])["slice"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["missing.nii.gz", "--out", "out.png"], 3, "image.missing"),
        (["text.nii.gz", "--out", "out.png"], 3, "image.unreadable"),
        (["scan.nii.gz", "--out", "out.jpg"], 2, "gin.out"),
        (["scan.nii.gz", "--out", "nowhere/out.png"], 2, "gin.out"),
        (["scan.nii.gz", "--modality", "CT", "--slice", "500", "--out", "out.png"], 2, "gin.slice"),
        (["scan.nii.gz", "--samples", "0", "--out", "out.png"], 2, "samples"),
        (["scan.nii.gz", "--dimensions", "4", "--out", "out.png"], 2, "dimensions"),
        (["scan.nii.gz"], 2, "--out"),
    ],
)
def test_refusals_have_a_code_and_write_nothing(monkeypatch, capsys, scan, tmp_path, arguments, code, word):
    (tmp_path / "text.nii.gz").write_text("no image")
    monkeypatch.chdir(tmp_path)
    got, out, err = fedseg(monkeypatch, capsys, "gin", *arguments)
    assert got == code
    assert word in err
    assert out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scan.nii.gz", "text.nii.gz"]


def test_a_modality_that_the_file_names_but_nobody_knows(monkeypatch, capsys, scan, tmp_path):
    image = sitk.ReadImage(str(scan))
    image.SetMetaData("modality", "PT")
    sitk.WriteImage(image, str(tmp_path / "pet.nrrd"))
    code, _, err = fedseg(monkeypatch, capsys, "gin", tmp_path / "pet.nrrd", "--out", tmp_path / "out.png")
    assert code == 3
    assert "modality.unsupported" in err


@pytest.mark.parametrize(
    ("modality", "folder"), [("CT", "amos_ct_mr"), ("MR", "mr_abdomen_chaos_t2"), ("ES", "polyp_polypgen")]
)
def test_real_images(monkeypatch, capsys, real_data, tmp_path, modality, folder):
    source = min((real_data / folder).glob("*_img.*"))
    arguments = ("gin", source, "--modality", modality, "--samples", 1, "--dimensions", 2, "--json")
    code, out, _ = fedseg(monkeypatch, capsys, *arguments, "--out", tmp_path / "out.png")
    assert code == 0
    assert json.loads(out.splitlines()[-1])["modality"] == modality
    assert np.asarray(Image.open(tmp_path / "out.png")).std() > 20
