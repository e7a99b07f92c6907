"""The result as Slicer's own slice and 3-D views draw it, off screen; what is drawn is where the truth says."""

import numpy as np
import pytest
from FedSegSlicerLib.SegmentationResult import undo
from offscreen_views import offscreen_views, pixels_of, save
from scene_helpers import bring_in, keep_pictures, load_volume
from trame_slicer.views import ViewLayoutDefinition

from FedSegCore.phantoms.torso import TORSO_CONTRACT
from FedSegCore.volumes.reading import read_label_map
from FedSegCore.volumes.segmentation_file import write_segmentation

pytestmark = pytest.mark.slicer

SIDE = 480


@pytest.fixture
def views():
    """Return an axial, a coronal and a 3-D view."""
    kinds = (ViewLayoutDefinition.axial_view(), ViewLayoutDefinition.coronal_view(), ViewLayoutDefinition.threed_view())
    with offscreen_views(kinds, SIDE) as made:
        yield made


def tint(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Return where the pixels' hue is that of ``colour`` (within about 10 degrees on the colour circle)."""

    def angle(rgb):
        red, green, blue = (rgb[..., n].astype(float) for n in range(3))
        return np.degrees(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue)), np.ptp(rgb, axis=-1)

    hue, strength = angle(pixels)
    wanted, _ = angle(np.array(colour))
    return (np.abs((hue - wanted + 180) % 360 - 180) < 10) & (strength > 20)


def test_the_result_is_drawn_over_its_image_and_in_3d(views, patients, tmp_path):
    axial, coronal, threed = views
    volume = load_volume(patients["CT"], "CT abdomen")
    path = patients["CT.labels"]
    node = bring_in(path, volume).node
    volume.GetDisplayNode().SetAutoWindowLevel(False)
    volume.GetDisplayNode().SetWindowLevel(400, 40)
    bare = {}
    node.GetDisplayNode().SetVisibility(False)
    for view in (axial, coronal):
        view.set_background_volume_id(volume.GetID())
        view.fit_view_to_content()
        bare[view] = pixels_of(view).copy()
    node.GetDisplayNode().SetVisibility(True)
    threed.reset_focal_point()
    threed.fit_view_to_content()
    pictures = {"axial": pixels_of(axial), "coronal": pixels_of(coronal), "threed": pixels_of(threed)}
    for name, pixels in pictures.items():
        save(pixels, tmp_path / f"result-{name}.png")
    keep_pictures(tmp_path)
    liver, truth = TORSO_CONTRACT.labels[0], read_label_map(path)
    shown = tint(pictures["axial"], liver.colour)
    assert not tint(bare[axial], liver.colour).any()
    # As many square millimetres are drawn as the truth has in the slice the views were moved to.
    field_of_view = axial.get_view_node().GetFieldOfView()
    to_slice = truth.grid.affine()
    slice_mm = axial.get_view_node().GetSliceToRAS().GetElement(2, 3)
    k = round((slice_mm - to_slice[2, 3]) / to_slice[2, 2])
    expected = (truth.array[0, k] == liver.value).sum() * truth.grid.spacing[0] * truth.grid.spacing[1]
    drawn = shown.sum() * (field_of_view[0] / SIDE) * (field_of_view[1] / SIDE)
    assert expected > 1000
    assert drawn == pytest.approx(expected, rel=0.15)
    assert (pictures["coronal"] != bare[coronal]).any(axis=-1).mean() > 0.02
    for label in TORSO_CONTRACT.labels[:4]:
        assert tint(pictures["threed"], label.colour).sum() > 50, label.name
    check_that_a_second_result_and_undo_are_drawn(axial, threed, volume, truth, tmp_path / "without.seg.nrrd")


def check_that_a_second_result_and_undo_are_drawn(axial, threed, volume, truth, without):
    """Part of the test above, because the views can be made once only."""
    liver = TORSO_CONTRACT.labels[0]

    def drawn():
        return [int(tint(pixels_of(view), liver.colour).sum()) for view in (axial, threed)]

    whole, place = drawn(), axial.get_view_node().GetSliceOffset()
    write_segmentation(truth.with_array(np.where(truth.array == 1, 0, truth.array)), TORSO_CONTRACT.labels, without)
    former = bring_in(without, volume)
    axial.get_view_node().SetSliceOffset(place)
    assert max(drawn()) < 0.02 * min(whole)
    undo(former)
    assert drawn() == pytest.approx(whole, rel=0.02)
