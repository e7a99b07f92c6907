"""PNG and JPEG, by Pillow: ITK's decoders fill what is missing with grey and print on standard output."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from FedSegCore.common.errors import BadInputError
from FedSegCore.volumes.file_checks import check_size
from FedSegCore.volumes.pixels import Array

_SIGNATURES = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8": "jpeg"}


def picture_format(path: Path) -> str | None:
    """Return ``"png"`` or ``"jpeg"`` by a file's first bytes, None if it is neither."""
    with path.open("rb") as file:
        head = file.read(8)
    return next((name for signature, name in _SIGNATURES.items() if head.startswith(signature)), None)


def read_picture(path: Path, *, numbers: bool = False) -> Array:
    """Return a picture as (j, i) grey or (j, i, 3) RGB of uint8 or uint16; transparency is dropped.

    Args:
        path: the PNG or JPEG file.
        numbers: return the numbers of a picture with a colour palette instead of their colours, as label maps want.

    Raises:
        BadInputError: ``image.unreadable``, ``image.too-big``.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG", "JPEG")) as picture:
                check_size(picture.size)
                array = np.asarray(_plain(picture, numbers))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise BadInputError(
            "image.unreadable",
            "The picture cannot be read: the file is damaged or cut short.",
            "Copy or export it again as PNG or JPEG.",
        ) from error
    return array.astype(np.uint8) if array.dtype == bool else array


def _plain(picture: Image.Image, numbers: bool) -> Image.Image:
    if picture.mode in ("L", "1", "RGB") or picture.mode.startswith("I") or (picture.mode == "P" and numbers):
        picture.load()
        return picture
    return picture.convert("L" if picture.mode in ("LA", "La") else "RGB")
