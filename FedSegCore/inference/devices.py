"""Where a network runs, and what to expect of it."""

import torch

from FedSegCore.common.errors import CannotDoHereError, UsageError

CHOICES = ("auto", "cpu", "cuda")


def choose_device(wanted: str = "auto") -> torch.device:
    """Return the device to compute on: ``auto`` takes a CUDA GPU where there is one, else the processor.

    Raises:
        UsageError: ``device.unknown``.
        CannotDoHereError: ``device.unavailable``: a GPU was asked for and there is none torch can use.
    """
    if wanted not in CHOICES:
        raise UsageError("device.unknown", f"There is no device {wanted!r}.", f"Choose one of {', '.join(CHOICES)}.")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise CannotDoHereError(
            "device.unavailable",
            "No CUDA graphics card can be used here.",
            "Choose device auto or cpu; or install the driver and a CUDA build of torch.",
        )
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def describe_device(device: torch.device) -> str:
    """Return the device in words, with what to expect of it."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}: seconds per volume"
    return f"processor ({torch.get_num_threads()} threads): seconds per slice stack, up to minutes per large volume"
