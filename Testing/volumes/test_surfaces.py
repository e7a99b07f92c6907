"""Surfaces enclose what the voxels do, are closed and face outwards; pieces say where a structure is."""

import numpy as np
import pytest

from FedSegCore.common.errors import CancelledError, CannotDoHereError
from FedSegCore.common.progress import Progress
from FedSegCore.phantoms.torso import TORSO_CONTRACT
from FedSegCore.volumes import surfaces
from FedSegCore.volumes.display_pieces import write_pieces
from FedSegCore.volumes.surfaces import surface_of
from FedSegCore.volumes.volume import Grid, Volume


def ball(radius=9, shape=(24, 26, 28), centre=(12, 13, 14)):
    k, j, i = np.indices(shape)
    return (k - centre[0]) ** 2 + (j - centre[1]) ** 2 + (i - centre[2]) ** 2 <= radius**2


def enclosed(surface):
    """Return the signed volume by the divergence theorem: positive if the triangles face outwards."""
    a, b, c = (surface.points[surface.triangles[:, n]].astype(float) for n in range(3))
    return np.einsum("ij,ij->", a, np.cross(b, c)) / 6


def open_edges(surface):
    edges = np.concatenate([surface.triangles[:, [0, 1]], surface.triangles[:, [1, 2]], surface.triangles[:, [2, 0]]])
    _, counts = np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)
    return int((counts != 2).sum())


@pytest.mark.parametrize(
    ("mask", "within"),
    # where the image cuts a ball, smoothing also rounds the cut's rim off: a voxel instead of its tip
    [(ball(), 0.85), (ball(centre=(0, 13, 27)), 1.1), (np.pad(ball(), 1), 0.85)],
    ids=["inside", "at edge", "pad"],
)
def test_a_ball_has_its_volume_is_closed_and_faces_outwards(mask, within):
    surface = surface_of(mask)
    assert enclosed(surface) == pytest.approx(mask.sum(), rel=0.1)
    assert open_edges(surface) == 0
    k, j, i = (np.argwhere(mask)[:, n] for n in range(3))
    np.testing.assert_allclose(surface.points.min(0), (i.min() - 0.5, j.min() - 0.5, k.min() - 0.5), atol=within)
    np.testing.assert_allclose(surface.points.max(0), (i.max() + 0.5, j.max() + 0.5, k.max() + 0.5), atol=within)
    np.testing.assert_allclose(np.linalg.norm(surface.normals, axis=1), 1, atol=1e-3)


def test_normals_of_a_ball_point_away_from_its_centre():
    surface = surface_of(ball())
    away = surface.points - np.array([14, 13, 12])
    agreement = np.einsum("ij,ij->i", away, surface.normals) / np.linalg.norm(away, axis=1)
    assert agreement.min() > 0.8


def test_single_voxels_and_thin_threads_are_not_smoothed_away():
    one = np.zeros((5, 5, 5), bool)
    one[2, 2, 2] = True
    surface = surface_of(one)
    assert open_edges(surface) == 0
    np.testing.assert_allclose(surface.points.mean(0), (2, 2, 2), atol=1e-3)
    thread = np.zeros((5, 5, 20), bool)
    thread[2, 2, 2:18] = True
    assert np.ptp(surface_of(thread).points[:, 0]) > 15


def test_very_large_structures_are_sampled_more_coarsely(monkeypatch):
    fine = surface_of(ball())
    monkeypatch.setattr(surfaces, "LARGEST_BOX", 1000)
    coarse = surface_of(ball())
    assert len(coarse.points) < 0.5 * len(fine.points)
    assert enclosed(coarse) == pytest.approx(enclosed(fine), rel=0.1)


def test_specks_far_apart_have_a_surface_though_they_lie_between_the_sampled_voxels(monkeypatch):
    monkeypatch.setattr(surfaces, "LARGEST_BOX", 1000)
    specks = np.zeros((16, 16, 32), bool)
    specks[3, 3, 3] = specks[11, 11, 27] = True
    surface = surface_of(specks)
    assert open_edges(surface) == 0
    np.testing.assert_allclose(surface.points.min(0), (2.5, 2.5, 2.5))
    np.testing.assert_allclose(surface.points.max(0), (27.5, 11.5, 11.5))


def test_no_voxel_no_surface():
    assert surface_of(np.zeros((3, 3, 3), bool)) is None


def labels_of(*values_and_masks):
    array = np.zeros((1, 24, 26, 28), np.uint8)
    for value, mask in values_and_masks:
        array[0][mask] = value
    return Volume(array, Grid((24, 26, 28)))


def test_centers_lie_inside_also_of_a_hollow_structure(tmp_path):
    shell = ball() & ~ball(7)
    told = write_pieces(labels_of((2, shell)), TORSO_CONTRACT.labels, tmp_path / "p", Progress())
    i, j, k = told["segments"][1]["center"]
    assert shell[k, j, i]
    assert [entry["surface"] is None for entry in told["segments"]] == [True, False, True, True, True]
    assert told["labels"]["start"] == [5, 4, 3]


def test_an_empty_result_has_segments_and_no_voxels(tmp_path):
    told = write_pieces(labels_of(), TORSO_CONTRACT.labels, tmp_path / "p", Progress())
    assert told["labels"] is None
    assert [entry["name"] for entry in told["segments"]] == list(TORSO_CONTRACT.names)


def test_it_is_cancelled_between_structures_and_an_unwritable_folder_is_told(tmp_path):
    progress = Progress()
    progress.cancel()
    with pytest.raises(CancelledError):
        write_pieces(labels_of((1, ball())), TORSO_CONTRACT.labels, tmp_path / "p", progress)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(CannotDoHereError) as refused:
        write_pieces(labels_of((1, ball())), TORSO_CONTRACT.labels, tmp_path / "file" / "p", Progress())
    assert refused.value.code == "file.unwritable"
