"""Small scans for tests of samples: whole ones have millions of voxels once they are prepared."""

import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
import slicer
import vtk

SMALL = (8, 16, 20)
BODY = (2, 48, 48)
"""Some slices of the whole body, for pictures."""


@functools.cache
def piece(modality: str, size: tuple[int, int, int] = SMALL):
    """Return voxels, labels (k, j, i) and spacing of a piece out of a generated patient's middle."""
    from FedSegCore.phantoms.torso import make_patient

    patient = make_patient(modality, 11, size="test")
    shape = patient.image.grid.shape
    first = [max(0, (n - wanted) // 2) for n, wanted in zip(shape, size, strict=True)]
    cut = tuple(slice(start, start + wanted) for start, wanted in zip(first, size, strict=True))
    images = (np.ascontiguousarray(volume.array[0][cut]) for volume in (patient.image, patient.labels))
    return *images, patient.image.grid.spacing


def place(spacing, turned: bool = False) -> vtk.vtkMatrix4x4:
    """Return a voxel-to-RAS matrix of an axial scan (LPS axes), or of one turned by 20 degrees."""
    angle = np.radians(20 if turned else 0)
    cosine, sine = np.cos(angle), np.sin(angle)
    a, b, c = spacing
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy([-a * cosine, b * sine, 0, 90, -a * sine, -b * cosine, 0, 80, 0, 0, c, -300, 0, 0, 0, 1])
    return matrix


def small_scan(modality: str, name: str = "scan", turned: bool = False, size: tuple[int, int, int] = SMALL):
    """Return a volume node with a piece of a generated patient."""
    image, _, spacing = piece(modality, size)
    node = slicer.util.addVolumeFromArray(image.copy(), ijkToRAS=place(spacing, turned), name=name)
    node.CreateDefaultDisplayNodes()
    return node


def small_outline(volume, size: tuple[int, int, int] = SMALL):
    """Return a segmentation node with the piece's liver and spleen over ``volume``."""
    from FedSegCore.phantoms.torso import TORSO_CONTRACT

    _, labels, _ = piece("CT", size)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "structures")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for label in TORSO_CONTRACT.labels:
        inside = (labels == label.value).astype(np.uint8)
        if inside.any():
            color = [part / 255 for part in label.colour]
            segment = node.GetSegmentation().AddEmptySegment(label.name, label.name, color)
            slicer.util.updateSegmentBinaryLabelmapFromArray(inside, node, segment, volume)
    return node


def make_site(folder: Path) -> Path:
    """Set up a site by the core itself, in a process of its own: nothing of the federation is imported here."""
    script = (
        "import sys; from pathlib import Path\n"
        "from FedSegCore.federation.site.folder import SiteFolder, SiteSettings\n"
        "folder = Path(sys.argv[1]); certificate = folder.with_suffix('.crt'); certificate.write_text('test')\n"
        "SiteFolder.create(folder, SiteSettings(name='north', coordinator='localhost:1'), certificate)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(folder)], check=True)
    return folder
