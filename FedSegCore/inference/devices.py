"""Where a network runs, and what to expect of it."""

import functools
import logging

import torch

from FedSegCore.common.errors import CannotDoHereError, UsageError

CHOICES = ("auto", "cpu", "cuda")

_log = logging.getLogger(__name__)


def choose_device(wanted: str = "auto") -> torch.device:
    """Return the device to compute on: ``auto`` takes a CUDA GPU that computes, where there is one, else the processor.

    Raises:
        UsageError: ``device.unknown``.
        CannotDoHereError: ``device.unavailable``: a GPU was asked for and there is none torch can use.
    """
    if wanted not in CHOICES:
        raise UsageError("device.unknown", f"There is no device {wanted!r}.", f"Choose one of {', '.join(CHOICES)}.")
    usable = wanted != "cpu" and torch.cuda.is_available() and not card_fails()
    if wanted == "cuda" and not usable:
        raise CannotDoHereError(
            "device.unavailable",
            "No CUDA graphics card can be used here.",
            "Choose device auto or cpu; or install the driver and a CUDA build of torch that suits the card.",
        )
    return torch.device("cuda" if usable else "cpu")


def card_note(wanted: str, device: torch.device) -> str | None:
    """Return what to tell people where ``device`` was chosen for want of a graphics card that computes; else None."""
    if wanted == "auto" and device.type == "cpu" and torch.cuda.is_available():
        return "The graphics card does not work with this PyTorch; the processor is used."
    return None


@functools.cache
def card_fails() -> bool:
    """Return whether a convolution fails on the card that torch sees; tried once in a process.

    torch sees cards for which it has no code (too old, too new), and drivers that no longer answer. A card that is
    merely full is none of these: predictors know what to do then.
    """
    try:
        image = torch.zeros(1, 1, 8, 8, device="cuda")
        torch.nn.functional.conv2d(image, image[..., :3, :3]).sum().item()
    except (RuntimeError, AssertionError) as error:
        if is_out_of_memory(error):
            return False
        _log.warning("the graphics card cannot be used: %s", type(error).__name__)
        return True
    return False


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether torch, a library below it or Python ran out of memory, on whatever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY):
        return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)  # as MONAI's sliding window wraps it


_OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "out of memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "std::bad_alloc",
)


def describe_device(device: torch.device) -> str:
    """Return the device in words, with what to expect of it."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}: seconds per volume"
    return f"processor ({torch.get_num_threads()} threads): seconds per slice stack, up to minutes per large volume"
