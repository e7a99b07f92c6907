"""What ITK does not notice: files cut short and headers whose geometry it silently repairs."""

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from FedSegCore.common.errors import BadInputError

MAX_VOXELS = 1_000_000_000
"""Most voxels of one image; more is taken for a broken header or beyond a workstation."""

_NIFTI_HEADER = 348
_CHUNK = 1 << 22
_SAME_SPACING = 0.01
"""Share by which two statements of a spacing may differ, by rounding or a slight skew."""


def truncated() -> BadInputError:
    """Return the error of a file that ends too early."""
    return BadInputError(
        "image.truncated",
        "The image file ends before all of its voxels.",
        "Copy or export the image again; the transfer was probably interrupted.",
    )


def too_big(size: Sequence[int]) -> BadInputError:
    """Return the error of an image with more than :data:`MAX_VOXELS` voxels; ``size`` along (i, j, k)."""
    return BadInputError(
        "image.too-big",
        f"The image claims {' x '.join(map(str, size))} voxels, more than this program handles.",
        "Crop or downsample it; if it is not that large, its header is damaged.",
    )


def check_size(size: Sequence[int]) -> None:
    """Raise BadInputError ``image.too-big`` if one volume of ``size`` (i, j, k, ...) has too many voxels."""
    if math.prod(size[:3]) > MAX_VOXELS:
        raise too_big(size)


def bad_geometry(detail: str) -> BadInputError:
    """Return the error of a header that puts voxels nowhere; ``detail`` says why in plain words."""
    return BadInputError(
        "image.bad-geometry",
        f"The image header does not say where its voxels lie: {detail}.",
        "Export the image again from its source, or correct its spacing and orientation in 3D Slicer and save it.",
    )


class NiftiHeader:
    """The few fields of a NIfTI-1 or NIfTI-2 header that are checked.

    Attributes:
        shape: sizes of all declared axes (i, j, k, t ...).
        spacing: absolute pixdim of those axes.
        sform: 3x4 RAS matrix, None if its code is 0.
        has_qform: whether the header also carries a rotation by quaternion.
        bytes_expected: header, extensions and voxels.
    """

    def __init__(self, head: bytes, *, separate_voxels: bool) -> None:
        order = "<" if struct.unpack("<i", head[:4])[0] in (348, 540) else ">"
        second = struct.unpack(order + "i", head[:4])[0] == 540
        dim = struct.unpack_from(order + ("8q" if second else "8h"), head, 16 if second else 40)
        pixdim = struct.unpack_from(order + ("8d" if second else "8f"), head, 104 if second else 76)
        bits = struct.unpack_from(order + "h", head, 14 if second else 72)[0]
        offset = struct.unpack_from(order + ("q" if second else "f"), head, 168 if second else 108)[0]
        if not math.isfinite(offset):
            raise bad_geometry("it does not say where they begin in the file")
        codes = struct.unpack_from(order + ("2i" if second else "2h"), head, 344 if second else 252)
        rows = struct.unpack_from(order + ("12d" if second else "12f"), head, 400 if second else 280)
        axes = dim[0]
        if not 1 <= axes <= 7 or min(dim[1 : axes + 1]) < 1:
            raise bad_geometry("the numbers of voxels are not positive")
        self.shape = dim[1 : axes + 1]
        self.spacing = tuple(abs(value) for value in pixdim[1 : axes + 1])
        self.sform: npt.NDArray[np.float64] | None = np.reshape(rows, (3, 4)) if codes[1] > 0 else None
        self.has_qform = codes[0] > 0
        size = math.prod(self.shape) * bits // 8
        self.bytes_expected = size + (0 if separate_voxels else int(offset))


def check_nifti(path: Path) -> None:
    """Refuse a NIfTI file that is cut short or has no usable spacing.

    ITK fills missing voxels with zeros and takes a spacing of 0 or NaN for 1 mm.

    Raises:
        BadInputError: ``image.truncated``, ``image.unreadable`` or ``image.bad-geometry``.
    """
    header = read_nifti_header(path)
    check_size(header.shape)
    for spacing, size in zip(header.spacing[:3], header.shape[:3], strict=False):
        if not np.isfinite(spacing) or (spacing <= 0 and size > 1):
            raise bad_geometry("the distance between its voxels is zero or not a number")
    if header.sform is not None and not np.isfinite(header.sform).all():
        raise bad_geometry("its orientation is not a number")
    _refuse_two_spacings(header)
    voxels = path.with_suffix(".img") if path.suffix.lower() == ".hdr" else path
    if voxels.is_file() and _unpacked_size(voxels, header.bytes_expected) < header.bytes_expected:
        raise truncated()


def _refuse_two_spacings(header: NiftiHeader) -> None:
    """Refuse a matrix, where it is all that places the voxels, with another distance between them than the header's.

    ITK, and so 3D Slicer, takes the header's distance; most other programs take the matrix', as the standard says.
    """
    if header.sform is None or header.has_qform or len(header.shape) < 3:
        return
    said, placed = np.array(header.spacing[:3]), np.linalg.norm(header.sform[:, :3], axis=0)
    several = np.array(header.shape[:3]) > 1
    if (np.abs(placed - said) > _SAME_SPACING * said)[several].any():
        raise bad_geometry("it gives two different distances between its voxels (pixdim and sform)")


def read_nifti_header(path: Path) -> NiftiHeader:
    """Read the header of a ``.nii``, ``.nii.gz``, ``.hdr`` or ``.img`` file (whose header is in the ``.hdr``)."""
    if path.suffix.lower() == ".img":
        path = path.with_suffix(".hdr")
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            head = file.read(540)
    except (OSError, EOFError, zlib.error) as error:
        raise truncated() from error
    if len(head) < _NIFTI_HEADER:
        raise truncated()
    return NiftiHeader(head.ljust(540, b"\0"), separate_voxels=path.suffix.lower() == ".hdr")


def _unpacked_size(path: Path, enough: int) -> int:
    """Return the number of bytes in a plain or gzip file, counting no further than ``enough``."""
    with path.open("rb") as raw:
        if raw.read(2) != b"\x1f\x8b":
            return path.stat().st_size
    total = 0
    try:
        with gzip.open(path) as file:
            while total < enough and (chunk := file.read(_CHUNK)):
                total += len(chunk)
    except (OSError, EOFError, zlib.error) as error:
        raise truncated() from error
    return total
