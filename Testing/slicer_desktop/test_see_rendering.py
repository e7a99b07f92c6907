"""The original and its samples with the outline, as Slicer's own slice views draw them side by side, off screen."""

from pathlib import Path

import numpy as np
import pytest
import slicer
from FedSegSlicerLib.NrrdReader import readNrrd
from FedSegSlicerLib.SampleVolumes import SampleVolumes, telling
from FedSegSlicerLib.VolumeExchange import VolumeSnapshot, writeNrrd
from offscreen_views import offscreen_views, pixels_of, save
from scene_helpers import keep_pictures
from see_helpers import piece, small_outline, small_scan
from trame_slicer.views import ViewLayoutDefinition

pytestmark = pytest.mark.slicer

SIDE = 160
SLICES = (3, 48, 48)
STORED = Path(__file__).parent / "pictures" / "gin-grid.png"


@pytest.fixture
def views():
    """Return four axial views."""
    kinds = [ViewLayoutDefinition.axial_view() for _ in range(4)]
    for number, kind in enumerate(kinds):
        kind.singleton_tag = f"FedSegGin{number}"
    with offscreen_views(kinds, SIDE) as made:
        yield made


def samples_of(volume, folder) -> list[VolumeSnapshot]:
    """Return the original in [0, 1] and three samples: GIN written out in NumPy, of kernels of side 1 and side 3."""
    image = np.clip((slicer.util.arrayFromVolume(volume).astype(np.float32) + 160) / 400, 0, 1)
    _, _, spacing = piece("CT", SLICES)
    place = ((spacing[0], 0, 0, -90), (0, spacing[1], 0, -80), (0, 0, spacing[2], -300), (0, 0, 0, 1))
    generator = np.random.default_rng(37)
    made = [image]
    for alpha, sides in ((0.5, (1, 1)), (0.7, (1, 3)), (1.0, (3, 1))):
        hidden = image
        for layer, side in enumerate(sides):
            kernel = generator.normal(size=(side, side))
            padded = np.pad(hidden, ((0, 0), (side // 2, side // 2), (side // 2, side // 2)))
            rows, columns = hidden.shape[1:]
            hidden = generator.normal() + sum(
                kernel[a, b] * padded[:, a : a + rows, b : b + columns] for a in range(side) for b in range(side)
            )
            hidden = np.where(hidden > 0, hidden, 0.01 * hidden) if layer == 0 else hidden
        blend = (1 - alpha) * image + alpha * hidden
        made.append((blend * np.linalg.norm(image) / np.linalg.norm(blend)).astype(np.float32))
    for index, array in enumerate(made):
        writeNrrd(VolumeSnapshot(array, place), folder / f"{index}.nrrd")
    return [readNrrd(folder / f"{index}.nrrd") for index in range(len(made))]


def test_the_grid_is_drawn_as_it_was_and_the_outline_fits_every_sample(views, tmp_path):
    volume = small_scan("CT", size=SLICES)
    outline = small_outline(volume, SLICES)
    outline.GetDisplayNode().SetVisibility2DFill(False)
    outline.GetDisplayNode().SetVisibility(False)
    volumes = SampleVolumes()
    for index, snapshot in enumerate(samples_of(volume, tmp_path)):
        volumes.put(index, f"view {index}", snapshot, telling(snapshot.array, 1))
    bare, outlined = [], []
    for pictures in (bare, outlined):
        for view, node in zip(views, volumes.nodes(), strict=True):
            view.set_background_volume_id(node.GetID())
            view.fit_view_to_content()
            pictures.append(pixels_of(view).copy())
        outline.GetDisplayNode().SetVisibility(True)
    grid = np.vstack([np.hstack(outlined[:2]), np.hstack(outlined[2:])])
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    save(grid, pictures / "gin-grid.png")
    keep_pictures(pictures)
    masks = [(after != before).any(axis=-1) for before, after in zip(bare, outlined, strict=True)]
    everywhere = np.logical_or.reduce(masks)
    assert everywhere.sum() > 200
    for mask in masks:
        assert (mask != everywhere).mean() < 0.01
    assert len({picture.tobytes() for picture in bare}) == 4
    compare(grid)


def compare(grid: np.ndarray) -> None:
    """Compare with the stored picture: other drivers draw lines a pixel aside, but nothing else may differ."""
    from PIL import Image

    stored = np.asarray(Image.open(STORED).convert("RGB")).astype(int)
    assert grid.shape == stored.shape
    difference = np.abs(grid.astype(int) - stored)
    assert difference.mean() < 3
    assert (difference.max(axis=-1) > 60).mean() < 0.02
