"""Named arrays in safetensors files, read lazily, so that a server's memory does not grow with its sites."""

import shutil
from collections.abc import Iterator, Mapping, MutableMapping
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from FedSegCore.common.errors import CannotDoHereError
from FedSegCore.federation.aggregation.rule import Arrays
from FedSegCore.federation.safetensors_layout import read_places, write_tensors


def save_arrays(path: Path, arrays: Arrays) -> None:
    """Write ``arrays`` as safetensors, asking for each once and holding one at a time.

    Raises:
        CannotDoHereError: ``federation.disk``.
    """
    try:
        with path.open("wb") as file:
            write_tensors(file, arrays, arrays.__getitem__)
    except OSError as error:
        raise disk_trouble() from error


def make_folder(folder: Path) -> None:
    """Make ``folder`` and those above it where they are not there.

    Raises:
        CannotDoHereError: ``federation.disk``.
    """
    try:
        # on Windows one that was just deleted stays while a virus scanner reads in it
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_trouble() from error


def disk_trouble() -> CannotDoHereError:
    """Return the error that says that the coordinator's disk takes nothing."""
    return CannotDoHereError(
        "federation.disk",
        "The run's folder cannot be written.",
        "Make room on the coordinator's disk and start the run again: it goes on with its next round.",
    )


def load_arrays(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    """Read a safetensors file into memory."""
    return load_file(path)


class LazyArrays(Mapping[str, npt.NDArray[np.generic]]):
    """The arrays of a safetensors file, each read when asked for; raises ValueError for what is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            self._places, self._start = read_places(file)

    def __getitem__(self, name: str) -> npt.NDArray[np.generic]:
        shape = self._places[name].shape
        return self.part(name, 0, prod(shape)).reshape(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def part(self, name: str, start: int, stop: int) -> npt.NDArray[np.generic]:
        """Return the values ``start`` to ``stop`` of a tensor laid out in a row."""
        place = self._places[name]
        offset = self._start + place.begin + start * place.dtype.itemsize
        return np.fromfile(self._path, place.dtype, stop - start, offset=offset)


class Joined(Mapping[str, npt.NDArray[np.generic]]):
    """Several sets of arrays as one, each set's names behind its own prefix; nothing is read or copied."""

    def __init__(self, parts: Mapping[str, Arrays]) -> None:
        self._parts = parts

    def __getitem__(self, key: str) -> npt.NDArray[np.generic]:
        prefix, slash, name = key.partition("/")
        return self._parts[prefix + slash][name]

    def __iter__(self) -> Iterator[str]:
        return (prefix + name for prefix, arrays in self._parts.items() for name in arrays)

    def __len__(self) -> int:
        return sum(map(len, self._parts.values()))


class Part(Mapping[str, npt.NDArray[np.generic]]):
    """The arrays that ``Joined`` put behind ``prefix``, which ends with a slash."""

    def __init__(self, arrays: Arrays, prefix: str) -> None:
        self._arrays = arrays
        self._prefix = prefix
        self._names = [key.removeprefix(prefix) for key in arrays if key.startswith(prefix)]

    def __getitem__(self, name: str) -> npt.NDArray[np.generic]:
        return self._arrays[self._prefix + name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class FolderSiteStore(MutableMapping[str, Arrays]):
    """Where a rule keeps what sites sent in a round: numbered files in a folder that is emptied first.

    Args:
        folder: made if it does not exist; **its content is deleted**.

    Raises:
        CannotDoHereError: ``federation.disk``.
    """

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        make_folder(folder)
        self._folder = folder
        self._paths: dict[str, Path] = {}

    def remove(self) -> None:
        """Delete the folder: single sites' updates are not kept longer than a round."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._paths = {}

    def __setitem__(self, site: str, arrays: Arrays) -> None:
        path = self._paths.get(site, self._folder / f"{len(self._paths):06d}.safetensors")
        save_arrays(path, arrays)
        self._paths[site] = path

    def __getitem__(self, site: str) -> Arrays:
        return LazyArrays(self._paths[site])

    def __delitem__(self, site: str) -> None:
        # the number stays taken: paths are counted, never reused
        raise TypeError("a round's updates are not deleted one by one")

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)
