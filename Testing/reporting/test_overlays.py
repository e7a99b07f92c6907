"""Slices: radiological orientation, true proportions, contract colours."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.image import imread

from FedSegCore.reporting.overlays import best_index, cut, display_range, overlay_png
from FedSegCore.volumes.labels import CodedTerm, Label, LabelContract
from FedSegCore.volumes.volume import Grid, Volume

TERM = CodedTerm(code="1", meaning="thing")
CONTRACT = LabelContract(
    labels=(
        Label(name="red", value=1, type=TERM, colour=(255, 0, 0)),
        Label(name="blue", value=2, type=TERM, colour=(0, 0, 255)),
    )
)
LPS = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
RAS = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)
SLI = (0.0, 1.0, 0.0, 0.0, 0.0, 1.0, -1.0, 0.0, 0.0)  # i towards I, j towards L, k towards P


def marked_at(point: tuple[float, float, float], direction: tuple[float, ...], modality: str = "CT") -> Volume:
    """An image of zeros with one bright voxel, the one nearest to an LPS point."""
    matrix = np.reshape(direction, (3, 3))
    spacing = np.array([2.0, 3.0, 4.0])
    size = np.array([12, 10, 8])
    origin = -matrix @ (spacing * (size - 1) / 2)
    index = np.rint(matrix.T @ (np.asarray(point) - origin) / spacing).astype(int)
    array = np.zeros(size[::-1], np.int16)
    array[tuple(index[::-1])] = 1000
    grid = Grid(tuple(size[::-1].tolist()), (2.0, 3.0, 4.0), tuple(origin.tolist()), direction)
    return Volume(array[None], grid, modality)


def bright_spot(volume: Volume, plane: Any) -> tuple[float, float]:
    """Where the marked voxel is seen: (from the top, from the left), as fractions of the picture."""
    length = list(range(20))
    for index in length:
        pixels = cut(volume, plane, index).pixels
        if pixels.max() > 500:
            row, column = np.argwhere(pixels > 500)[0]
            return float((row + 0.5) / pixels.shape[0]), float((column + 0.5) / pixels.shape[1])
    raise AssertionError("never seen")


@pytest.mark.parametrize("direction", [LPS, RAS, SLI])
def test_radiological_orientation_whatever_the_file_says(direction: tuple[float, ...]) -> None:
    right_anterior_inferior = marked_at((-6.0, -7.0, -6.0), direction)
    down, across = bright_spot(right_anterior_inferior, "axial")
    assert across < 0.5  # the patient's right is at the picture's left
    assert down < 0.5  # anterior is up
    down, across = bright_spot(right_anterior_inferior, "coronal")
    assert across < 0.5
    assert down > 0.5  # inferior is down
    down, across = bright_spot(right_anterior_inferior, "sagittal")
    assert across < 0.5  # anterior is at the left
    assert down > 0.5


def test_marks_say_so_and_are_left_out_where_axes_are_not_the_patients() -> None:
    volume = marked_at((0, 0, 0), LPS)
    assert cut(volume, "axial", 0).marks == ("R", "L", "A", "P")
    assert cut(volume, "coronal", 0).marks == ("R", "L", "S", "I")
    assert cut(volume, "sagittal", 0).marks == ("A", "P", "S", "I")
    assert cut(marked_at((0, 0, 0), LPS, "US"), "axial", 0).marks == ()


def test_pixels_have_their_true_proportions() -> None:
    volume = marked_at((0, 0, 0), LPS)  # spacing 2, 3, 4 mm along L, P, S
    assert cut(volume, "axial", 0).aspect == pytest.approx(3 / 2)
    assert cut(volume, "coronal", 0).aspect == pytest.approx(4 / 2)
    assert cut(volume, "sagittal", 0).aspect == pytest.approx(4 / 3)
    picture = read(overlay_png(volume, [("", None)], CONTRACT, pixels=240))
    # 12 x 10 pixels of 2 x 3 mm: 24 x 30 mm, so 240 pixels wide and 300 high, and 28 for the title.
    assert picture.shape[:2] == (328, 240)


def test_the_slice_that_shows_most_labels_is_chosen() -> None:
    array = np.zeros((1, 9, 8, 8), np.uint8)
    array[0, 1, :7, :7] = 1  # most voxels, but one label only
    array[0, 5:8, :3, :6] = 1
    array[0, 5, 4:6, 4:6] = 2
    array[0, 6, 4:7, 4:7] = 2
    labels = Volume(array, Grid((9, 8, 8)))
    assert best_index(labels, "axial") == 6
    assert best_index(Volume(np.zeros_like(array), Grid((9, 8, 8))), "axial") == 4
    flipped = Volume(array[:, ::-1], Grid((9, 8, 8), direction=(1, 0, 0, 0, 1, 0, 0, 0, -1)))
    assert best_index(flipped, "axial") == 6


def read(png: bytes) -> npt.NDArray[Any]:
    return np.asarray(imread(io.BytesIO(png), format="png"))


def test_labels_appear_in_their_colours_over_the_right_place() -> None:
    grid = Grid((1, 20, 20))
    labels = np.zeros((1, 1, 20, 20), np.uint8)
    labels[0, 0, 2:8, 2:8] = 1
    labels[0, 0, 12:18, 12:18] = 2
    image = Volume(np.full((1, 1, 20, 20), 40, np.int16), grid, "CT")  # the window's middle: grey
    picture = read(overlay_png(image, [("image", None), ("labels", Volume(labels, grid))], CONTRACT, pixels=200))
    plain, drawn = picture[28:, :197], picture[28:, 200:]
    assert np.abs(plain[100, 100, :3] - 0.5).max() < 0.02
    red, blue = drawn[50, 50, :3], drawn[150, 150, :3]
    # 28 % of the colour over 72 % of mid-grey.
    np.testing.assert_allclose(red, (0.28 + 0.36, 0.36, 0.36), atol=0.03)
    np.testing.assert_allclose(blue, (0.36, 0.36, 0.28 + 0.36), atol=0.03)
    np.testing.assert_allclose(drawn[100, 100, :3], 0.5, atol=0.03)
    edge = drawn[50, 15:25, :3]  # the outline at column 2 (pixel 20) is full red
    assert (edge[:, 0] - edge[:, 1]).max() > 0.6


def test_labels_of_another_grid_are_refused() -> None:
    image = Volume(np.zeros((1, 2, 4, 4)), Grid((2, 4, 4)))
    labels = Volume(np.zeros((1, 2, 4, 4), np.uint8), Grid((2, 4, 4), origin=(5.0, 0.0, 0.0)))
    with pytest.raises(ValueError, match="grid"):
        overlay_png(image, [("", labels)], CONTRACT)


def test_grey_values_are_chosen_by_modality() -> None:
    array = np.linspace(0, 1000, 1001).reshape(1, 1, 7, 143)
    assert display_range(Volume(array, Grid((1, 7, 143)), "CT")) == (-160.0, 240.0)
    assert display_range(Volume(array, Grid((1, 7, 143)), "MR")) == pytest.approx((5.0, 995.0))
    flat = Volume(np.full((1, 1, 2, 2), np.nan), Grid((1, 2, 2)), "MR")
    low, high = display_range(flat)
    assert low < high
    assert len(overlay_png(flat, [("", None)], CONTRACT)) > 0
