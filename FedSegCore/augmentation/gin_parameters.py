"""What GIN drew, as plain tensors, and its file (safetensors)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from FedSegCore.common.errors import BadInputError
from FedSegCore.common.files import whole_file

FORMAT = "fedseg-gin"
VERSION = "1"
_MOST_LAYERS, _WIDEST_KERNEL, _MOST_CHANNELS = 8, 9, 64


@dataclass(frozen=True)
class GinParameters:
    """What GIN drew for N images: one random network per image, or one for all (G = N or G = 1).

    Attributes:
        kernels: per layer, float32 (G, out, in, *sides), sides (k, j, i) in 3-D and (j, i) in 2-D, all odd.
        shifts: per layer, float32 (G, out), added after the convolution.
        alpha: float32 (N,), weight of the network's output in the blend with the image, in [0, 1].
        applied: bool (N,), False where the image is left as it is.
    """

    kernels: tuple[Tensor, ...]
    shifts: tuple[Tensor, ...]
    alpha: Tensor
    applied: Tensor

    @property
    def images(self) -> int:
        """Number of images N."""
        return int(self.alpha.shape[0])

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return int(self.kernels[0].shape[2])

    @property
    def dimensions(self) -> int:
        """2 or 3."""
        return self.kernels[0].ndim - 3

    @property
    def shared(self) -> bool:
        """Whether one network serves all images (and not just because there is only one)."""
        return self.kernels[0].shape[0] == 1 < self.images

    @property
    def reach(self) -> int:
        """Voxels along the first spatial axis by which one voxel's value depends on its neighbours."""
        return sum(int(kernel.shape[3]) // 2 for kernel in self.kernels)

    def select(self, chosen: Tensor) -> "GinParameters":
        """Return the parameters of some of the images only.

        Args:
            chosen: bool (N,) or int64 indices.
        """
        alpha, applied = self.alpha[chosen], self.applied[chosen]
        if self.kernels[0].shape[0] != self.images:
            return replace(self, alpha=alpha, applied=applied)
        return GinParameters(
            tuple(kernel[chosen] for kernel in self.kernels),
            tuple(shift[chosen] for shift in self.shifts),
            alpha,
            applied,
        )

    def as_3d(self) -> "GinParameters":
        """Return 3-D parameters that do to every slice of a volume (along k) what these do to an image.

        The kernels are one slice thick. On a one-slice volume, kernels of any thickness with these as their middle
        slice do the same: their other slices meet only the padding's zeros.
        """
        if self.dimensions == 3:
            return self
        return replace(self, kernels=tuple(kernel.unsqueeze(3) for kernel in self.kernels))

    def to(self, device: torch.device | str) -> "GinParameters":
        """Return the same parameters on another device."""
        return self._map(lambda tensor: tensor.to(device))

    def _map(self, change: Callable[[Tensor], Tensor]) -> "GinParameters":
        return GinParameters(
            tuple(map(change, self.kernels)), tuple(map(change, self.shifts)), change(self.alpha), change(self.applied)
        )

    def save(self, path: Path) -> None:
        """Write the parameters as safetensors, with metadata ``format`` and ``version``; nothing is pickled."""
        tensors = {"alpha": self.alpha, "applied": self.applied}
        for layer, (kernel, shift) in enumerate(zip(self.kernels, self.shifts, strict=True)):
            tensors |= {f"kernel.{layer}": kernel, f"shift.{layer}": shift}
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        with whole_file(path) as beside:
            save_file(plain, beside, metadata={"format": FORMAT, "version": VERSION})

    @classmethod
    def load(cls, path: Path) -> "GinParameters":
        """Read what ``save`` wrote, on the CPU.

        Raises:
            BadInputError: ``gin.unreadable``, not a whole safetensors file; ``gin.invalid``, its tensors are not GIN's.
        """
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise BadInputError(
                "gin.unreadable", f"{path.name} is not a whole file of GIN parameters.", "Save the parameters again."
            ) from error
        layers = sum(name.startswith("kernel.") for name in tensors)
        try:
            parameters = cls(
                tuple(tensors.pop(f"kernel.{layer}") for layer in range(layers)),
                tuple(tensors.pop(f"shift.{layer}") for layer in range(layers)),
                tensors.pop("alpha"),
                tensors.pop("applied"),
            )
        except KeyError as error:
            raise _invalid(path, f"{error} is missing") from error
        fault = _fault(parameters) if not tensors else f"unknown tensors {sorted(tensors)}"
        if (metadata.get("format"), metadata.get("version")) != (FORMAT, VERSION):
            fault = f"it is not of format {FORMAT} {VERSION}"
        if fault:
            raise _invalid(path, fault)
        return parameters


def _invalid(path: Path, fault: str) -> BadInputError:
    return BadInputError(
        "gin.invalid", f"{path.name} does not hold GIN parameters: {fault}.", "Save the parameters again."
    )


def _fault(parameters: GinParameters) -> str | None:
    """Return what is wrong with tensors read from a file, None if nothing is."""
    kernels, shifts = parameters.kernels, parameters.shifts
    images = parameters.alpha.shape
    if not 1 <= len(kernels) <= _MOST_LAYERS:
        return f"it has {len(kernels)} layers"
    if len(images) != 1 or images[0] < 1 or parameters.applied.shape != images:
        return "alpha and applied are not one value per image"
    if parameters.applied.dtype != torch.bool or any(
        tensor.dtype != torch.float32 for tensor in (*kernels, *shifts, parameters.alpha)
    ):
        return "a tensor has the wrong type"
    if not all(bool(tensor.isfinite().all()) for tensor in (*kernels, *shifts)):
        return "a value is not finite"
    if not bool(((parameters.alpha >= 0) & (parameters.alpha <= 1)).all()):
        return "alpha is not within 0 to 1"
    return _shape_fault(parameters)


def _shape_fault(parameters: GinParameters) -> str | None:
    first = parameters.kernels[0]
    if first.ndim not in (5, 6):
        return "a kernel has the wrong number of axes"
    into, networks = parameters.channels, first.shape[0]
    if networks not in (1, parameters.images):
        return "there is neither one network per image nor one for all"
    for kernel, shift in zip(parameters.kernels, parameters.shifts, strict=True):
        if kernel.ndim != first.ndim or shift.shape != kernel.shape[:2] or kernel.shape[0] != networks:
            return "kernels and shifts do not fit each other"
        if kernel.shape[2] != into or not 1 <= kernel.shape[1] <= _MOST_CHANNELS:
            return "the layers' channels do not fit each other"
        if any(side % 2 == 0 or side > _WIDEST_KERNEL for side in kernel.shape[3:]):
            return "a kernel's side is even or too long"
        into = int(kernel.shape[1])
    return None if into == parameters.channels else "the network does not give as many channels as it takes"
