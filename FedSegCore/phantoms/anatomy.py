"""One generated patient: which tissue lies where, as a function of place, for any scanner to sample."""

from enum import IntEnum

import numpy as np
import numpy.typing as npt

from FedSegCore.phantoms.shapes import Ellipsoid, Mask, Points, Scalar, Waves

LIVER, RIGHT_KIDNEY, LEFT_KIDNEY, SPLEEN, LESION = range(1, 6)
"""Values in label maps, as in ``torso.TORSO_CONTRACT``."""


class Tissue(IntEnum):
    """What a point is made of."""

    AIR = 0
    FAT = 1
    MUSCLE = 2
    BONE = 3
    MARROW = 4
    LUNG = 5
    GAS = 6
    FLUID = 7
    BOWEL = 8
    VESSEL = 9
    LIVER = 10
    SPLEEN = 11
    CORTEX = 12
    SINUS = 13
    LESION = 14
    TABLE = 15


class Anatomy:
    """A torso around the first lumbar vertebra, centred on (0, 0, 0) LPS mm, shaped by ``seed``.

    Liver and right kidney lie at the patient's right (x < 0), spleen and left kidney at the left, the spine behind
    (y > 0), lungs above (z > 0).
    """

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 0x70A50])
        self.size = float(rng.uniform(0.93, 1.07))
        """Of the whole body, relative to the mean."""
        # Half axes of the trunk's cross-section, left-right and front-back, in mm before scaling by ``size``.
        self.trunk = (float(rng.uniform(150, 168)), float(rng.uniform(100, 116)))
        self._fat = float(rng.uniform(0.84, 0.92))
        self._bend = Waves.make(rng, (130, 320), 4.0, count=7, fields=3)
        self._loops = Waves.make(rng, (45, 80), 1.0, count=8)
        self._content = Waves.make(rng, (40, 90), 1.0, count=5)
        self._diaphragm = float(rng.uniform(52, 66))
        self._rib_phase = float(rng.uniform(0, 26))
        self._make_organs(rng)
        self._make_lesion(rng)

    def _make_organs(self, rng: np.random.Generator) -> None:
        self._right_lobe = Ellipsoid.make((-72, -5, 26), (62, 74, 62), rng)
        self._left_lobe = Ellipsoid.make((-8, -48, 40), (66, 32, 30), rng)
        self._spleen = Ellipsoid.make((100, 32, 40), (25, 46, 44), rng)
        self._right_kidney = Ellipsoid.make((-62, 52, -34), (27, 25, 52), rng, shift=6)
        self._left_kidney = Ellipsoid.make((63, 48, -20), (27, 25, 53), rng, shift=6)
        self._gallbladder = Ellipsoid.make((-48, -48, -14), (14, 14, 24), rng)
        self._stomach = Ellipsoid.make((58, -38, 38), (38, 36, 40), rng)
        self._aorta = Ellipsoid.make((10, 30, 0), (11, 11, 600), rng, shift=2, turn=0.0)
        self._cava = Ellipsoid.make((-19, 31, 0), (12, 10, 600), rng, shift=2, turn=0.0)
        self._portal = Ellipsoid.make((-50, 2, 22), (38, 9, 9), rng, turn=0.4)
        self._spine = Ellipsoid.make((0, 58, 0), (22, 18, 900), rng, shift=2, turn=0.0)
        self._psoas = [Ellipsoid.make((side * 37, 57, -60), (17, 19, 75), rng, shift=2) for side in (-1, 1)]

    def _make_lesion(self, rng: np.random.Generator) -> None:
        radius = float(rng.uniform(17, 25))
        # Well inside the right lobe, so that a whole lesion fits, but anywhere there.
        place = self._right_lobe.at(
            (float(rng.uniform(-0.2, 0.4)), float(rng.uniform(-0.4, 0.4)), float(rng.uniform(-0.3, 0.3)))
        )
        self._lesion = Ellipsoid.make(
            (float(place[0]), float(place[1]), float(place[2])), (radius,) * 3, rng, shift=0, stretch=0.15, turn=0.5
        )

    @property
    def lesion_centre(self) -> npt.NDArray[np.float32]:
        """The lesion's middle, LPS mm, (3,)."""
        return self._unbent(self._lesion.centre)

    @property
    def right_kidney_centre(self) -> npt.NDArray[np.float32]:
        """The right kidney's middle, LPS mm, (3,)."""
        return self._unbent(self._right_kidney.centre)

    def skin_depth(self, points: Points) -> Scalar:
        """Return the level of the trunk at ``points`` (..., 3) LPS mm: 0 on its axis, 1 on the skin, more outside."""
        return self._trunk_level(self._bent(points))

    def sample(self, points: Points) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Return (tissue, label) at ``points`` (..., 3) LPS mm, each (...) uint8; labels as in the contract, 0 none."""
        bent = self._bent(points)
        depth = self._trunk_level(bent)
        tissue = np.full(depth.shape, Tissue.AIR, np.uint8)
        label = np.zeros(depth.shape, np.uint8)
        tissue[depth < 1.0] = Tissue.FAT
        wall = depth < self._fat
        tissue[wall] = Tissue.MUSCLE
        inside = depth < self._fat - 0.11
        tissue[inside] = Tissue.FAT
        self._put_bowel(tissue, bent, inside)
        tissue[inside & (bent[..., 2] > self._diaphragm - 0.0022 * (bent[..., 0] ** 2 + bent[..., 1] ** 2) + 12)] = (
            Tissue.LUNG
        )
        self._put_organs(tissue, label, bent, inside)
        self._put_skeleton(tissue, label, bent, depth, inside)
        self._put_vessels(tissue, label, bent)
        return tissue, label

    def _bent(self, points: Points) -> Points:
        # The body is straight where it is described and bent where it is seen.
        return (points + self._bend.at(points)) / np.float32(self.size)

    def _unbent(self, point: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        target = point * np.float32(self.size)
        guess = target.copy()
        for _ in range(8):  # the bend is a contraction: a fixed point is reached in a few steps
            guess = target - self._bend.at(guess)
        return guess

    def _trunk_level(self, bent: Points) -> Scalar:
        a, b = self.trunk
        # A superellipse is closer to a trunk's section than an ellipse.
        section = (np.abs(bent[..., 0]) / a) ** 2.4 + (np.abs(bent[..., 1]) / b) ** 2.4
        return (section ** (1 / 2.4)).astype(np.float32, copy=False)

    def _put_bowel(self, tissue: npt.NDArray[np.uint8], bent: Points, inside: Mask) -> None:
        room = inside & (bent[..., 2] < 14) & (bent[..., 1] < 26)
        here = bent[room]
        loops = self._loops.at(here)[..., 0]
        content = self._content.at(here)[..., 0]
        kinds = np.full(loops.shape, Tissue.FAT, np.uint8)
        kinds[loops > -0.15] = Tissue.BOWEL
        kinds[(loops > 0.35) & (content > 0.2)] = Tissue.FLUID
        kinds[(loops > 0.75) & (content < -0.7) & (here[..., 1] < -15)] = Tissue.GAS
        tissue[room] = kinds

    def _put_organs(
        self, tissue: npt.NDArray[np.uint8], label: npt.NDArray[np.uint8], bent: Points, inside: Mask
    ) -> None:
        stomach = self._stomach.contains(bent) & inside
        tissue[stomach] = Tissue.BOWEL
        tissue[stomach & self._stomach.contains(bent, 0.85)] = Tissue.FLUID
        tissue[stomach & self._stomach.contains(bent, 0.85) & (bent[..., 1] < -48)] = Tissue.GAS
        spleen = self._spleen.contains(bent) & inside
        # Two lobes that flow into one another, without a crease where they meet.
        liver = self._right_lobe.level(bent) ** -3 + self._left_lobe.level(bent) ** -3 > 1.0
        liver &= inside & ~spleen
        lesion = self._lesion.contains(bent) & liver
        gallbladder = self._gallbladder.contains(bent) & inside & ~lesion
        for mask, kind, value in (
            (spleen, Tissue.SPLEEN, SPLEEN),
            (liver, Tissue.LIVER, LIVER),
            (liver & self._portal.contains(bent), Tissue.VESSEL, LIVER),
            (lesion, Tissue.LESION, LESION),
            (gallbladder, Tissue.FLUID, 0),
        ):
            tissue[mask] = kind
            label[mask] = value
        for kidney, value in ((self._right_kidney, RIGHT_KIDNEY), (self._left_kidney, LEFT_KIDNEY)):
            level = kidney.level(bent)
            mask = (level < 1.0) & inside
            tissue[(level < 1.12) & inside & ~mask] = Tissue.FAT  # kidneys lie in fat, also where they touch the liver
            label[(level < 1.12) & inside] = 0
            tissue[mask] = Tissue.CORTEX
            tissue[level < 0.42] = Tissue.SINUS
            label[mask] = value

    def _put_skeleton(
        self, tissue: npt.NDArray[np.uint8], label: npt.NDArray[np.uint8], bent: Points, depth: Scalar, inside: Mask
    ) -> None:
        for muscle in self._psoas:
            soft = muscle.contains(bent) & (label == 0) & inside
            tissue[soft] = Tissue.MUSCLE
        x, y, z = bent[..., 0], bent[..., 1], bent[..., 2]
        # Muscles of the back between spine and skin.
        back = (y > 62) & (np.abs(x) < 62) & (depth < self._fat) & (label == 0)
        tissue[back] = Tissue.MUSCLE
        ribs = (depth > self._fat - 0.11) & (depth < self._fat - 0.03) & (y > -70)
        ribs &= ((z + 0.45 * np.abs(y) + self._rib_phase) % 26 < 10) & (z > -35 + 0.5 * np.abs(np.minimum(y, 0)))
        tissue[ribs] = Tissue.BONE
        body = self._spine.level(bent)
        disc = (z + self._rib_phase) % 34 < 7
        column = body < 1.0
        tissue[column] = Tissue.MARROW
        tissue[column & (body > 0.8)] = Tissue.BONE
        tissue[column & disc] = Tissue.MUSCLE
        arch = (np.hypot(x, y - 84) < 14) & (np.hypot(x, y - 84) > 8)
        process = (np.abs(x) < 5) & (y > 90) & (y < 106) & ~disc & (depth < 0.95)
        tissue[arch | process] = Tissue.BONE
        tissue[np.hypot(x, y - 84) <= 8] = Tissue.FLUID
        label[column | arch | process] = 0

    def _put_vessels(self, tissue: npt.NDArray[np.uint8], label: npt.NDArray[np.uint8], bent: Points) -> None:
        for vessel in (self._aorta, self._cava):
            mask = vessel.contains(bent)
            tissue[mask] = Tissue.VESSEL
            label[mask] = 0
