"""A 3-D picture of segments: every pixel looks along a ray for the first surface and lights it."""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.image import imsave
from scipy import ndimage

from FedSegCore.volumes.labels import LabelContract
from FedSegCore.volumes.volume import Grid, Volume

Array = npt.NDArray[np.float32]

_LIGHT = np.array([-0.45, -0.75, 0.50], np.float32) / np.float32(np.sqrt(0.45**2 + 0.75**2 + 0.5**2))
"""Where the light comes from, in the viewer's axes (right, away, up)."""

_ROOM = 3
"""Empty voxels put around a segment."""


class NothingToDrawError(ValueError):
    """Nothing is labelled, or only specks that are gone once the surfaces are smooth."""


@dataclass(frozen=True)
class _Layer:
    """What a ray meets first of one label: (rows, columns) each; depth is infinite where it meets nothing."""

    depth: Array
    shade: Array
    shine: Array
    colour: Array


@dataclass(frozen=True)
class _View:
    """Where the viewer stands: rows of ``axes`` are the picture's right, away from the viewer and up, in LPS.

    The view volume is a cube of edge ``2 * half`` mm around ``centre`` (in the viewer's axes), cut into ``size`` rows
    and columns of ``step`` mm and into layers of ``deep`` mm along the rays.
    """

    axes: npt.NDArray[np.float64]
    centre: npt.NDArray[np.float64]
    half: float
    size: int

    @property
    def step(self) -> float:
        return 2 * self.half / self.size

    @property
    def deep(self) -> float:
        return 6 * self.step

    def scale(self) -> npt.NDArray[np.float64]:
        """Return mm per index along (away, down, right)."""
        return np.array([self.deep, self.step, self.step])

    def to_lps(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return (3x3 matrix, (3,) offset) from view index (away, down, right) to LPS mm."""
        right, away, up = self.axes
        matrix = np.stack([away * self.deep, -up * self.step, right * self.step], axis=1)
        return matrix, self.axes.T @ (self.centre + np.array([-self.half, -self.half, self.half]))


def render_segments(
    labels: Volume,
    contract: LabelContract,
    *,
    turn_degrees: float = 20.0,
    raise_degrees: float = 12.0,
    pixels: int = 400,
    smoothing_mm: float = 3.0,
) -> bytes:
    """Return a PNG of the segments from the front, transparent around them: the patient's right is at the left.

    A segment that hides another nearly completely is drawn translucent.

    Args:
        labels: contract values on any grid (oblique, flipped and thick slices are drawn in their true shape).
        contract: the labels' colours.
        turn_degrees: how far the viewer walks towards the patient's left.
        raise_degrees: how far the viewer looks down from above.
        pixels: the longer edge before empty margins are cut off.
        smoothing_mm: standard deviation of the smoothing that takes the steps off voxels.

    Raises:
        NothingToDrawError: nothing is labelled, or only specks.
    """
    array = labels.array[0]
    shown = [label for label in contract.labels if (array == label.value).any()]
    if not shown:
        raise NothingToDrawError("there is nothing to draw: no voxel is labelled")
    to_lps = labels.grid.affine()
    axes = _view_axes(turn_degrees, raise_degrees)
    centre, half = _extent(array, to_lps, axes)
    view = _View(axes, centre, half, pixels * 5 // 4)  # drawn larger and made smaller again: smooth edges
    paints = [np.asarray(label.colour, np.float32) / np.float32(255) for label in shown]
    layers = [
        _cast(array == label.value, labels.grid, view, smoothing_mm, paint)
        for label, paint in zip(shown, paints, strict=True)
    ]
    if not any(np.isfinite(layer.depth).any() for layer in layers):
        raise NothingToDrawError("there is nothing to draw: only specks are labelled")
    return _png(_compose(layers), pixels / view.size)


def _png(picture: Array, shrink: float) -> bytes:
    """Return a picture of premultiplied RGBA, made smaller and cut to what is visible."""
    small = ndimage.zoom(picture, (shrink, shrink, 1), order=1, mode="nearest", grid_mode=True)
    visible = np.maximum(small[..., 3:], 1e-4)
    rgba = _trimmed(np.concatenate([small[..., :3] / visible, small[..., 3:]], axis=-1))
    stream = io.BytesIO()
    imsave(stream, np.rint(np.clip(rgba, 0, 1) * 255).astype(np.uint8), format="png")
    return stream.getvalue()


def _view_axes(turn: float, tilt: float) -> npt.NDArray[np.float64]:
    """Return the axes of a viewer in front of the patient, as in ``_View.axes``."""
    t, r = np.deg2rad(turn), np.deg2rad(tilt)
    right = np.array([np.cos(t), np.sin(t), 0.0])
    away = np.array([-np.sin(t) * np.cos(r), np.cos(t) * np.cos(r), -np.sin(r)])
    return np.stack([right, away, np.cross(right, away)])


def _extent(
    array: npt.NDArray[np.generic], to_lps: npt.NDArray[np.float64], view: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], float]:
    """Return the middle of what is labelled in the viewer's axes, mm, and half the edge of a cube that holds it."""
    found = np.argwhere(array != 0)[:, ::-1]
    seen = (found @ to_lps[:3, :3].T + to_lps[:3, 3]) @ view.T
    low, high = seen.min(axis=0), seen.max(axis=0)
    return (low + high) / 2, float((high - low).max() / 2 * 1.06 + 6.0)


def _smooth(mask: npt.NDArray[np.bool_], spacing: tuple[float, float, float], smoothing_mm: float) -> Array:
    sigma = [max(0.7, smoothing_mm / s) for s in spacing[::-1]]
    # Room around it, so that surfaces close where a segment is cut by the image's border.
    smooth = ndimage.gaussian_filter(np.pad(mask, _ROOM).astype(np.float32), sigma)
    return np.asarray(smooth, np.float32)


def _cast(mask: npt.NDArray[np.bool_], grid: Grid, view: _View, smoothing_mm: float, colour: Array) -> _Layer:
    """Send a ray through every pixel of the part of the picture where the segment can be."""
    matrix, offset = view.to_lps()
    from_lps = np.linalg.inv(grid.affine())
    # View index -> LPS -> voxel (i, j, k) -> padded (k, j, i).
    to_voxel = (from_lps[:3, :3] @ matrix)[::-1]
    start = (from_lps[:3, :3] @ offset + from_lps[:3, 3])[::-1] + _ROOM
    low, high = _box(mask, to_voxel, start, view.size)
    block = ndimage.affine_transform(
        _smooth(mask, grid.spacing, smoothing_mm), to_voxel, to_voxel @ low + start, tuple(high - low), order=1
    )
    inside = block > 0.5
    first = np.argmax(inside, axis=0)
    hit = inside.any(axis=0)
    rows, columns = np.indices(first.shape)
    before = block[np.maximum(first - 1, 0), rows, columns]
    at = block[first, rows, columns]
    # Layers are coarse; where the level is crossed between two of them is interpolated.
    share = np.where(first > 0, (0.5 - before) / np.maximum(at - before, 1e-6), 1.0)
    met = np.maximum(first - 1 + share, 0)
    shade, shine = _light(block, met, hit, view.scale())
    place = (slice(low[1], high[1]), slice(low[2], high[2]))
    whole = (view.size, view.size)
    layer = _Layer(np.full(whole, np.inf, np.float32), np.zeros(whole, np.float32), np.zeros(whole, np.float32), colour)
    layer.depth[place] = np.where(hit, (met + low[0]) * view.deep, np.inf)
    layer.shade[place] = shade
    layer.shine[place] = shine
    return layer


def _box(
    mask: npt.NDArray[np.bool_], to_voxel: npt.NDArray[np.float64], start: npt.NDArray[np.float64], size: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return first and one past last view index (away, down, right) of a segment, with a margin for smoothing."""
    found = np.argwhere(mask)
    low, high = found.min(axis=0) - 1, found.max(axis=0) + 1
    corners = np.array([[k, j, i] for k in (low[0], high[0]) for j in (low[1], high[1]) for i in (low[2], high[2])])
    seen = np.linalg.solve(to_voxel, (corners + _ROOM - start).T).T
    first, past = np.floor(seen.min(axis=0)).astype(int) - 1, np.ceil(seen.max(axis=0)).astype(int) + 2
    # Oblique boxes are wider than what is in them and may reach out of the picture.
    first[1:], past[1:] = np.clip(first[1:], 0, size - 1), np.clip(past[1:], 1, size)
    return first, past


def _light(
    block: Array, first: npt.NDArray[np.float64], hit: npt.NDArray[np.bool_], scale: npt.NDArray[np.float64]
) -> tuple[Array, Array]:
    """Return diffuse light and highlight where rays meet the surface (Blinn's model)."""
    rows, columns = np.nonzero(hit)
    at = np.stack([first[hit], rows, columns])

    def slope(axis: int) -> npt.NDArray[np.float64]:
        reach = np.zeros((3, 1))
        reach[axis] = 3.0 / scale[axis]  # 3 mm to either side: shorter than organs, longer than voxels' steps
        ahead, behind = (ndimage.map_coordinates(block, at + s * reach, order=1, mode="nearest") for s in (1, -1))
        return np.asarray(behind - ahead, np.float64)

    # The block's axes are (away, down, right); the light's are (right, away, up).
    normal = np.stack([slope(2), slope(0), -slope(1)], axis=-1)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-6)
    halfway = _LIGHT + np.array([0.0, -1.0, 0.0])
    halfway = halfway / np.linalg.norm(halfway)
    shade, shine = np.zeros(hit.shape, np.float32), np.zeros(hit.shape, np.float32)
    rim = np.clip(-normal[:, 1], 0, 1)  # surfaces that turn away darken, which brings out the form
    shade[hit] = (0.30 + 0.70 * np.clip(normal @ _LIGHT, 0, 1)) * (0.55 + 0.45 * rim)
    shine[hit] = 0.28 * np.clip(normal @ halfway, 0, 1) ** 30
    return shade, shine


def _compose(layers: list[_Layer]) -> Array:
    """Return premultiplied RGBA, (rows, columns, 4): nearest surfaces over farther ones."""
    depths = np.stack([layer.depth for layer in layers])
    alphas = [0.45 if _hides_another(depths, n) else 1.0 for n in range(len(layers))]
    near = np.min(depths)
    span = np.max(depths[np.isfinite(depths)]) - near + 1e-6
    order = np.argsort(depths, axis=0)
    picture = np.zeros((*depths.shape[1:], 4), np.float32)
    for rank in range(len(layers)):
        for n, layer in enumerate(layers):
            here = (order[rank] == n) & np.isfinite(layer.depth)
            fog = 1.0 - 0.22 * (layer.depth[here] - near) / span  # farther is a little darker
            rgb = layer.colour * (layer.shade[here] * fog)[:, None] * 1.15 + layer.shine[here][:, None]
            left = (1.0 - picture[here][:, 3:]) * alphas[n]
            picture[here] += np.concatenate([np.clip(rgb, 0, 1) * left, left], axis=1)
    return picture


def _trimmed(rgba: Array) -> Array:
    rows, columns = (np.flatnonzero(rgba[..., 3].max(axis=axis) > 0) for axis in (1, 0))
    margin = 8
    top, left = max(0, rows[0] - margin), max(0, columns[0] - margin)
    return rgba[top : rows[-1] + margin + 1, left : columns[-1] + margin + 1]


def _hides_another(depths: Array, own: int) -> bool:
    others = [n for n in range(len(depths)) if n != own and np.isfinite(depths[n]).any()]
    return any(
        float(np.mean(depths[own][np.isfinite(depths[n])] < depths[n][np.isfinite(depths[n])])) > 0.9 for n in others
    )
