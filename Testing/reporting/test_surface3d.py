"""The 3-D picture: seen from the front, true shape on any grid, hidden things shine through."""

import io

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.image import imread

from FedSegCore.reporting.surface3d import NothingToDrawError, render_segments
from FedSegCore.volumes.labels import CodedTerm, Label, LabelContract
from FedSegCore.volumes.volume import Grid, Volume

TERM = CodedTerm(code="1", meaning="thing")
RED, GREEN = (200, 40, 40), (40, 200, 40)
CONTRACT = LabelContract(
    labels=(
        Label(name="red", value=1, type=TERM, colour=RED),
        Label(name="green", value=2, type=TERM, colour=GREEN),
    )
)


def balls(
    places: dict[int, tuple[tuple[float, float, float], float]],
    spacing: tuple[float, float, float] = (3.0, 3.0, 3.0),
    direction: npt.NDArray[np.float64] | None = None,
) -> Volume:
    """Balls (LPS centre, radius in mm) on a grid around the origin."""
    matrix = np.eye(3) if direction is None else direction
    size = np.ceil(np.array([150.0, 150.0, 150.0]) / spacing).astype(int)
    origin = -matrix @ (np.asarray(spacing) * (size - 1) / 2)
    kji = np.moveaxis(np.indices(size[::-1]), 0, -1)
    points = (kji[..., ::-1] * np.asarray(spacing)) @ matrix.T + origin
    array = np.zeros(size[::-1], np.uint8)
    for value, (centre, radius) in places.items():
        array[np.linalg.norm(points - np.asarray(centre), axis=-1) < radius] = value
    grid = Grid(tuple(size[::-1].tolist()), spacing, tuple(origin.tolist()), tuple(matrix.ravel().tolist()))
    return Volume(array[None], grid)


def picture(labels: Volume, turn: float = 0.0, tilt: float = 0.0) -> npt.NDArray[np.float64]:
    png = render_segments(labels, CONTRACT, turn_degrees=turn, raise_degrees=tilt, pixels=120)
    return np.asarray(imread(io.BytesIO(png), format="png"), float)


def centre_of(rgba: npt.NDArray[np.float64], channel: int) -> npt.NDArray[np.float64]:
    other = 1 - channel
    found = (rgba[..., channel] > rgba[..., other] + 0.1) & (rgba[..., 3] > 0.5)
    assert found.sum() > 50
    return np.argwhere(found).mean(axis=0)


def test_the_patients_right_is_at_the_left_and_the_head_is_up() -> None:
    rgba = picture(balls({1: ((-35, 0, -25), 20), 2: ((35, 0, 25), 20)}))
    red, green = centre_of(rgba, 0), centre_of(rgba, 1)
    assert red[1] < green[1]
    assert red[0] > green[0]


def test_what_is_in_front_hides_what_is_behind() -> None:
    front = picture(balls({1: ((-12, -30, 0), 22), 2: ((12, 30, 0), 22)}))  # red in front of green, partly
    back = picture(balls({1: ((-12, 30, 0), 22), 2: ((12, -30, 0), 22)}))
    middle = front.shape[0] // 2, front.shape[1] // 2
    assert front[middle][0] > front[middle][1]
    assert back[middle][1] > back[middle][0]


def test_what_is_inside_shines_through() -> None:
    rgba = picture(balls({1: ((0, 0, 0), 45), 2: ((0, 0, 0), 15)}))
    middle, edge = rgba[rgba.shape[0] // 2, rgba.shape[1] // 2], rgba[rgba.shape[0] // 2, 18]
    assert middle[3] > 0.95
    assert 0.3 < edge[3] < 0.6  # the outer ball is translucent
    assert middle[1] > edge[1] * 1.3


@pytest.mark.parametrize(
    ("spacing", "direction"),
    [
        ((3.0, 3.0, 6.0), np.eye(3)),
        ((2.0, 4.0, 3.0), np.diag([-1.0, 1.0, -1.0])),
        ((3.0, 3.0, 3.0), np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])),
    ],
)
def test_a_ball_is_round_whatever_the_grid(
    spacing: tuple[float, float, float], direction: npt.NDArray[np.float64]
) -> None:
    rgba = picture(balls({1: ((0, 0, 0), 40)}, spacing, direction), turn=20, tilt=12)
    seen = rgba[..., 3] > 0.5
    height, width = np.ptp(np.argwhere(seen), axis=0) + 1
    assert height == pytest.approx(width, rel=0.06)
    assert seen.sum() == pytest.approx(np.pi / 4 * height * width, rel=0.05)


def test_light_comes_from_above_the_viewers_left() -> None:
    rgba = picture(balls({1: ((0, 0, 0), 40)}))
    n = rgba.shape[0]
    assert rgba[n // 4, n // 4, 0] > 1.3 * rgba[3 * n // 4, 3 * n // 4, 0]


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(NothingToDrawError, match="no voxel"):
        render_segments(Volume(np.zeros((1, 2, 2, 2), np.uint8), Grid((2, 2, 2))), CONTRACT)
    specks = np.zeros((1, 20, 20, 20), np.uint8)
    specks[0, [1, 10, 19], [2, 10, 18], [3, 10, 17]] = (1, 2, 1)
    with pytest.raises(NothingToDrawError, match="only specks"):
        render_segments(Volume(specks, Grid((20, 20, 20))), CONTRACT)
