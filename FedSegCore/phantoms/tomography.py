"""Generated CT and MR: the anatomy sampled on a scanner's grid, with that scanner's contrast and faults."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from FedSegCore.phantoms.anatomy import Anatomy, Tissue
from FedSegCore.phantoms.shapes import Mask, Points, Waves, small_rotation
from FedSegCore.volumes.volume import Grid, Vector, Volume

HU: dict[Tissue, tuple[float, float]] = {
    Tissue.AIR: (-1000, 0),
    Tissue.FAT: (-100, 8),
    Tissue.MUSCLE: (58, 6),
    Tissue.BONE: (430, 40),
    Tissue.MARROW: (190, 25),
    Tissue.LUNG: (-820, 30),
    Tissue.GAS: (-950, 20),
    Tissue.FLUID: (16, 10),
    Tissue.BOWEL: (72, 18),
    Tissue.VESSEL: (145, 20),
    Tissue.LIVER: (104, 10),
    Tissue.SPLEEN: (116, 11),
    Tissue.CORTEX: (152, 20),
    Tissue.SINUS: (40, 20),
    Tissue.LESION: (42, 8),
    Tissue.TABLE: (-250, 60),
}
"""CT number of each tissue after contrast medium, portal venous phase: mean and spread between patients."""

T2: dict[Tissue, tuple[float, float]] = {
    Tissue.AIR: (0.0, 0.0),
    Tissue.FAT: (0.13, 0.03),
    Tissue.MUSCLE: (0.20, 0.02),
    Tissue.BONE: (0.06, 0.01),
    Tissue.MARROW: (0.30, 0.05),
    Tissue.LUNG: (0.03, 0.01),
    Tissue.GAS: (0.01, 0.0),
    Tissue.FLUID: (0.95, 0.06),
    Tissue.BOWEL: (0.45, 0.08),
    Tissue.VESSEL: (0.08, 0.02),
    Tissue.LIVER: (0.33, 0.03),
    Tissue.SPLEEN: (0.53, 0.05),
    Tissue.CORTEX: (0.62, 0.05),
    Tissue.SINUS: (0.80, 0.06),
    Tissue.LESION: (0.66, 0.05),
    Tissue.TABLE: (0.0, 0.0),
}
"""Signal of each tissue in a fat-suppressed T2-weighted MR, relative: mean and spread between patients."""


def make_ct(anatomy: Anatomy, seed: int, tiny: bool) -> tuple[Volume, Volume]:
    """Return (int16 HU image, uint8 labels) of a contrast-enhanced CT of the patient."""
    rng = np.random.default_rng([seed, 0xC7])
    grid = _scanner_grid(rng, (3.8, 3.8, 4.0), (48, 96, 96), tiny, tilt=0.0)
    points = _points(grid)
    tissue, label = anatomy.sample(points)
    tissue[_table(points, anatomy) & (tissue == Tissue.AIR)] = Tissue.TABLE
    image = _paint(tissue, HU, rng)
    # Parenchyma is not one number: a few HU of slow variation, more in the bowel.
    image += Waves.make(rng, (25, 60), 1.0, count=8).at(points)[..., 0] * np.where(tissue == Tissue.BOWEL, 22.0, 7.0)
    image = ndimage.gaussian_filter(image, 0.5)  # partial volume, and the scanner's own blur
    noise = ndimage.gaussian_filter(rng.normal(size=image.shape), (0.3, 0.6, 0.6))
    image += noise * (rng.uniform(14, 22) / noise.std())
    return _volumes(np.clip(np.rint(image), -1024, 3071).astype(np.int16), label, grid, "CT")


def make_mr(anatomy: Anatomy, seed: int, tiny: bool) -> tuple[Volume, Volume]:
    """Return (uint16 image in arbitrary units, uint8 labels) of a T2-weighted MR of the patient."""
    rng = np.random.default_rng([seed, 0x32])
    grid = _scanner_grid(rng, (3.8, 3.8, 6.0), (32, 96, 96), tiny, tilt=0.12)
    points = _points(grid)
    tissue, label = anatomy.sample(points)
    signal = _paint(tissue, T2, rng)
    signal *= 1.0 + 0.08 * Waves.make(rng, (25, 60), 1.0, count=8).at(points)[..., 0]
    signal *= np.exp(Waves.make(rng, (350, 700), 0.19, count=4).at(points)[..., 0])  # coil sensitivity
    signal = ndimage.gaussian_filter(signal, (0.2, 0.5, 0.5))
    # The magnitude of complex noise is Rician: air is not black, and its noise is not symmetric.
    sigma = rng.uniform(0.022, 0.036)
    real, imaginary = (rng.normal(scale=sigma, size=signal.shape) for _ in range(2))
    image = np.hypot(signal + real, imaginary) * rng.uniform(400, 1500)
    return _volumes(np.rint(image).astype(np.uint16), label, grid, "MR")


def _scanner_grid(
    rng: np.random.Generator, spacing: Vector, shape: tuple[int, int, int], tiny: bool, tilt: float
) -> Grid:
    """Return a grid around the body as scanners give them: some flipped, some (``tilt`` radians at most) oblique."""
    if tiny:
        shape = (shape[0] // 2, shape[1] // 2, shape[2] // 2)
        spacing = (spacing[0] * 2, spacing[1] * 2, spacing[2] * 2)
    signs = np.where(rng.uniform(size=3) < (0.25, 0.25, 0.4), -1.0, 1.0)
    rotation = small_rotation(rng, tilt) if rng.uniform() < 0.5 else np.eye(3)
    direction = rotation * signs
    half = (np.array(shape[::-1]) - 1) / 2 * np.asarray(spacing)
    origin = np.asarray(rng.uniform(-6, 6, 3)) - direction @ half
    return Grid(
        shape=shape,
        spacing=spacing,
        origin=(float(origin[0]), float(origin[1]), float(origin[2])),
        direction=tuple(float(v) for v in direction.ravel()),
    )


def _points(grid: Grid) -> Points:
    """Return the LPS mm of every voxel centre: (k, j, i, 3) float32."""
    affine = grid.affine()
    k, j, i = (np.arange(n, dtype=np.float64) for n in grid.shape)
    plane = i[None, :, None] * affine[:3, 0] + j[:, None, None] * affine[:3, 1] + affine[:3, 3]
    return (k[:, None, None, None] * affine[:3, 2] + plane).astype(np.float32)


def _table(points: Points, anatomy: Anatomy) -> Mask:
    bed = points[..., 1] - anatomy.trunk[1] * anatomy.size - 8 + 0.0009 * points[..., 0] ** 2
    return (bed > 0) & (bed < 9) & (np.abs(points[..., 0]) < 170)


def _paint(
    tissue: npt.NDArray[np.uint8], table: dict[Tissue, tuple[float, float]], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    values = [table[kind][0] + table[kind][1] * float(np.clip(rng.normal(), -2, 2)) for kind in Tissue]
    return np.asarray(values, np.float32)[tissue]


def _volumes(
    image: npt.NDArray[np.generic], label: npt.NDArray[np.uint8], grid: Grid, modality: str
) -> tuple[Volume, Volume]:
    return Volume(image[None], grid, modality, "phantom"), Volume(label[None], grid, None, "phantom")
