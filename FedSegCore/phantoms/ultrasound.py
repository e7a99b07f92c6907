"""Generated ultrasound: one sector image through liver, lesion and right kidney."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from FedSegCore.phantoms.anatomy import LESION, LIVER, RIGHT_KIDNEY, Anatomy, Tissue
from FedSegCore.volumes.volume import Grid, Volume

ECHO: dict[Tissue, tuple[float, float]] = {
    Tissue.AIR: (0.05, 0.0),
    Tissue.FAT: (0.50, 0.08),
    Tissue.MUSCLE: (0.30, 0.04),
    Tissue.BONE: (1.60, 0.10),
    Tissue.MARROW: (0.20, 0.0),
    Tissue.LUNG: (1.20, 0.20),
    Tissue.GAS: (1.50, 0.20),
    Tissue.FLUID: (0.03, 0.01),
    Tissue.BOWEL: (0.45, 0.10),
    Tissue.VESSEL: (0.04, 0.01),
    Tissue.LIVER: (0.42, 0.05),
    Tissue.SPLEEN: (0.42, 0.05),
    Tissue.CORTEX: (0.24, 0.03),
    Tissue.SINUS: (0.80, 0.10),
    Tissue.LESION: (0.12, 0.02),
    Tissue.TABLE: (0.0, 0.0),
}
"""How strongly each tissue scatters back: mean and spread between patients."""

LOSS: dict[Tissue, float] = {Tissue.BONE: 0.16, Tissue.LUNG: 0.30, Tissue.GAS: 0.30, Tissue.AIR: 0.5, Tissue.FLUID: 0.0}
"""Amplitude lost per mm, of what casts shadows or none; everything else loses ``SOFT_LOSS``."""

SOFT_LOSS = 0.0045
"""After the machine's own compensation for depth."""

PIXEL = 1.4
"""mm, at size "demo"."""

PIXELS = 160
RADIUS = 45.0
"""mm, of a curved transducer."""

HALF_ANGLE = 0.54
"""Radians, half the opening of the fan."""

VISIBLE = 0.12
"""Share of the amplitude that must be left for a structure to be seen and thus labelled."""

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Plane:
    """Where the picture lies in the patient.

    Attributes:
        probe: LPS mm of the transducer's middle, on the skin.
        down: unit vector into the body.
        across: unit vector along the transducer.
    """

    probe: Array
    down: Array
    across: Array

    def points(self, lateral: Array, depth: Array) -> Array:
        """Return the LPS mm of the places ``lateral`` and ``depth`` mm from the probe: (..., 3)."""
        return self.probe + lateral[..., None] * self.across + depth[..., None] * self.down


def make_us(anatomy: Anatomy, seed: int, tiny: bool) -> tuple[Volume, Volume]:
    """Return (uint8 grey image, uint8 labels) of one slice: i along the transducer, j downwards into the body.

    The grid says nothing of the place in the patient, as with ultrasound machines: identity directions, origin 0.
    Structures in shadow are not labelled.
    """
    rng = np.random.default_rng([seed, 0x05])
    pixels, pixel = (PIXELS // 2, PIXEL * 2) if tiny else (PIXELS, PIXEL)
    plane = _plane(anatomy, rng)
    side = (np.arange(pixels, dtype=np.float32) - (pixels - 1) / 2) * pixel
    lateral, depth = np.meshgrid(side, np.arange(pixels, dtype=np.float32) * pixel + 1.0)
    angle = np.arctan2(lateral, depth + RADIUS)
    beam = np.hypot(lateral, depth + RADIUS) - RADIUS
    reach = 0.77 * float(pixels * pixel)
    fan = (np.abs(angle) < HALF_ANGLE) & (beam >= 0) & (beam < reach)
    amplitude, remaining = _echoes(anatomy, plane, reach, rng)
    place = np.stack([beam, (angle + HALF_ANGLE) / (2 * HALF_ANGLE) * (amplitude.shape[1] - 1)])
    image = ndimage.map_coordinates(amplitude, place, order=1, mode="nearest")
    seen = ndimage.map_coordinates(remaining, place, order=1, mode="nearest") > VISIBLE
    _, label = anatomy.sample(plane.points(lateral, depth))
    label[~(fan & seen) | ~np.isin(label, (LIVER, RIGHT_KIDNEY, LESION))] = 0
    decibels = 20 * np.log10(np.maximum(image, 1e-6)) + rng.uniform(-2, 2)
    grey = np.clip((decibels + 46) / 48, 0, 1) * 255 * fan
    grid = Grid(shape=(1, pixels, pixels), spacing=(pixel, pixel, 1.0))
    voxels = np.rint(grey).astype(np.uint8)
    return Volume(voxels[None, None], grid, "US", "phantom"), Volume(label[None, None], grid, None, "phantom")


def _plane(anatomy: Anatomy, rng: np.random.Generator) -> Plane:
    """Return a plane from under the right ribs through lesion and right kidney, as a sonographer would find it."""
    lesion, kidney = anatomy.lesion_centre, anatomy.right_kidney_centre
    target = (lesion + kidney) / 2 + rng.uniform(-4, 4, 3).astype(np.float32)
    start = np.array([rng.uniform(-85, -60), -160.0, rng.uniform(-25, 5)], np.float32)
    steps = np.linspace(0, 1, 400, dtype=np.float32)[:, None]
    line = (start + steps * (target - start)).astype(np.float32)
    probe = line[int(np.argmax(anatomy.skin_depth(line) < 0.99))]
    down = (target - probe) / np.linalg.norm(target - probe)
    along = kidney - lesion
    across = along - (along @ down) * down
    length = float(np.linalg.norm(across))
    across = across / length if length > 5.0 else np.cross(down, np.array([1.0, 0.0, 0.0], np.float32))
    across = across / np.linalg.norm(across)
    return Plane(probe, down.astype(np.float32), across.astype(np.float32))


def _echoes(anatomy: Anatomy, plane: Plane, reach: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return echo amplitude and remaining beam amplitude along beams: (depth in mm steps, angle) each."""
    depths = np.arange(int(reach) + 2, dtype=np.float32)
    angles = np.linspace(-HALF_ANGLE, HALF_ANGLE, 192, dtype=np.float32)
    distance = depths[:, None] + np.float32(RADIUS)
    tissue, _ = anatomy.sample(plane.points(distance * np.sin(angles), distance * np.cos(angles) - np.float32(RADIUS)))
    # Skin and the coupling gel touch the probe: what the bent body leaves as air there is not air.
    tissue[(tissue == Tissue.AIR) & (depths[:, None] < 15)] = Tissue.FAT
    echo = np.asarray([ECHO[t][0] + ECHO[t][1] * float(np.clip(rng.normal(), -2, 2)) for t in Tissue], np.float32)
    loss = np.asarray([LOSS.get(t, SOFT_LOSS) for t in Tissue], np.float32)
    lost = np.cumsum(loss[tissue], axis=0) - loss[tissue]
    remaining = ndimage.gaussian_filter1d(np.exp(-lost), 1.2, axis=1)
    scatter = ndimage.gaussian_filter(echo[tissue], (0.6, 1.0))
    # Walls that meet the beam squarely shine.
    wall = np.abs(np.diff(scatter, axis=0, prepend=scatter[:1]))
    amplitude = scatter * _speckle(scatter.shape, rng) + 0.9 * wall
    focus = 1.0 - 0.25 * ((depths - 85) / 110) ** 2
    noise = 0.010 * np.abs(rng.normal(size=amplitude.shape))
    return (amplitude * remaining * focus[:, None] + noise).astype(np.float32), remaining.astype(np.float32)


def _speckle(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Return the interference of many small scatterers: Rayleigh-distributed, of mean 1, short along the beam."""
    real, imaginary = (ndimage.gaussian_filter(rng.normal(size=shape), (0.8, 1.1)) for _ in range(2))
    amplitude = np.hypot(real, imaginary)
    return (amplitude / amplitude.mean()).astype(np.float32)
