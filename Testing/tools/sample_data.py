"""Makes the module's sample images: a generated patient as CT and as MR, with pictures for Slicer's sample data page.

    python Testing/tools/sample_data.py

Prints the SHA-256 sums that FedSegSlicerLib/SampleScans.py names. Nobody's images are in them.
"""

import hashlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import Image

from FedSegCore.phantoms.torso import make_patient
from FedSegCore.volumes.writing import write_volume

FOLDER = Path(__file__).resolve().parents[2] / "FedSegSlicer" / "Resources" / "SampleData"
SEED = 4711
SIZE = (260, 280)
WINDOWS = {"CT": (-160.0, 240.0), "MR": None}


def picture(voxels: np.ndarray, window: tuple[float, float] | None) -> Image.Image:
    """Return the middle slice of (k, j, i) voxels as Slicer's sample data page shows it."""
    middle = voxels[len(voxels) // 2].astype(np.float64)
    low, high = window or (float(middle.min()), float(np.percentile(middle, 99.5)))
    grey = np.clip((middle - low) / (high - low) * 255.0, 0.0, 255.0).astype(np.uint8)
    framed = Image.new("L", SIZE)
    framed.paste(Image.fromarray(grey).resize((SIZE[0], SIZE[0])), (0, (SIZE[1] - SIZE[0]) // 2))
    return framed


def main() -> None:
    """Write images and pictures."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for modality, window in WINDOWS.items():
        image = make_patient(modality, SEED).image
        file = FOLDER / f"GeneratedAbdomen{modality}.nrrd"
        write_volume(image, file)
        voxels = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
        picture(voxels, window).save(file.with_suffix(".png"), optimize=True)
        print(hashlib.sha256(file.read_bytes()).hexdigest(), file.name, file.stat().st_size)  # noqa: T201


if __name__ == "__main__":
    main()
