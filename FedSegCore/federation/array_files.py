"""Named arrays in safetensors files, read lazily, so that a server's memory does not grow with its sites."""

import shutil
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from FedSegCore.federation.aggregation.rule import Arrays


def save_arrays(path: Path, arrays: Arrays) -> None:
    """Write ``arrays`` as safetensors."""
    # safetensors writes the raw buffer: anything but C order would come back transposed
    save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, path)


def load_arrays(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    """Read a safetensors file into memory."""
    return load_file(path)


class LazyArrays(Mapping[str, npt.NDArray[np.generic]]):
    """The arrays of a safetensors file, each read when asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with safe_open(path, framework="numpy") as file:
            self._names = tuple(file.keys())

    def __getitem__(self, name: str) -> npt.NDArray[np.generic]:
        if name not in self._names:
            raise KeyError(name)
        with safe_open(self._path, framework="numpy") as file:
            array: npt.NDArray[np.generic] = file.get_tensor(name)
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class FolderSiteStore(MutableMapping[str, Arrays]):
    """Where a rule keeps what sites sent in a round: numbered files in a folder that is emptied first.

    Args:
        folder: made if it does not exist; **its content is deleted**.
    """

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
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
