"""What keeps a runtime from being installed: cause and cure in plain words, by code."""

from slicer.i18n import tr as _

from .Errors import UserError


def problemOf(code: str) -> UserError:
    """Return the error that the installing process told by its code."""
    known = {error.code: error for error in [*_ofThisComputer(), *_ofTheNetwork(), *_ofPackages(), *_ofTheRuntime()]}
    return known.get(code, known["runtime.install-failed"])


def _ofThisComputer() -> list[UserError]:
    return [
        UserError(
            "runtime.disk",
            _("There is not enough room on the disk for the runtime."),
            _("Make room, or choose a folder on another disk under Options."),
        ),
        UserError(
            "runtime.disk-full",
            _("The disk became full while the runtime was being installed; nothing was changed."),
            _("Make room, or choose a folder on another disk under Options, and try again."),
        ),
        UserError(
            "runtime.no-drive",
            _("The drive that the runtime's folder is on is not there."),
            _("Connect it, or choose another folder under Options."),
        ),
        UserError(
            "runtime.permission",
            _("You may not write into the runtime's folder, or a program keeps its files open."),
            _("Choose a folder of your own under Options, or ask your IT whether a virus scanner blocks it."),
        ),
        UserError(
            "runtime.busy",
            _("Another Slicer is installing into this folder."),
            _("Wait until it has finished, then look again."),
        ),
        UserError(
            "runtime.in-use",
            _("The runtime, or some of its files, were not deleted: a program uses them."),
            _("Close other Slicers and stop training on this computer, then remove it again."),
        ),
        UserError(
            "runtime.working",
            _("The runtime is at work for this Slicer, and was not removed."),
            _("Wait until it has finished, or cancel it; then remove it again."),
        ),
        UserError(
            "runtime.no-pip",
            _("This Slicer's Python has no pip."),
            _("Use an official Slicer, or choose a runtime that was made otherwise under Settings."),
        ),
    ]


def _ofThisGraphicsCard() -> UserError:
    return UserError(
        "runtime.no-gpu",
        _("The runtime is ready, but computes on the processor: PyTorch cannot use the NVIDIA graphics card."),
        _("Update the card's driver (CUDA 12 or later); let your IT allow PyTorch's own package server; then repair "
          "the runtime under Settings. Until then all works, only more slowly."),
    )  # fmt: skip


def _ofTheNetwork() -> list[UserError]:
    return [
        UserError(
            "runtime.network",
            _("The package server cannot be reached."),
            _("Check the network; behind a proxy enter its address under Options; or install from a folder of wheels."),
        ),
        UserError(
            "runtime.proxy",
            _("The proxy refuses to let the download through."),
            _("Enter http://user:password@proxy:port under Options, as your IT says; or use a folder of wheels."),
        ),
        UserError(
            "runtime.tls",
            _("The package server's certificate is not trusted: probably a firewall looks into the connection."),
            _("Ask your IT for the file of its certificate authority (.pem, .crt) and choose it under Options."),
        ),
    ]


def _ofPackages() -> list[UserError]:
    return [
        UserError(
            "runtime.no-wheels",
            _("There are no wheels (.whl files) in the chosen folder."),
            _("Choose the folder that holds them, or leave it empty to download them."),
        ),
        UserError(
            "runtime.no-wheel",
            _("A package is not available for this system and Slicer's version of Python."),
            _("The log names it. Check that the folder of wheels is complete and meant for this system, or use a newer "
              "Slicer."),
        ),
        UserError(
            "runtime.standard-build",
            _("PyTorch's own package server cannot be reached, and the build that others offer is several times as "
              "large as was said; nothing was downloaded."),
            _("Let your IT allow that server (the log names it); or install from a folder of wheels; or choose NVIDIA "
              "under Options to download the large build, which runs on this processor, too."),
        ),
        UserError(
            "runtime.broken-package",
            _("A package is damaged."),
            _("Try again; if you install from a folder of wheels, copy the one that the log names again."),
        ),
        UserError(
            "runtime.conflict",
            _("The packages that are offered do not fit together."),
            _("Check that the folder of wheels, or your package server, has the versions the log names."),
        ),
    ]  # fmt: skip


def _ofTheRuntime() -> list[UserError]:
    return [
        _ofThisGraphicsCard(),
        UserError(
            "runtime.check-failed",
            _("The packages were installed but cannot be used on this computer; nothing was changed."),
            _("The log says which one. Try the build for the processor under Options."),
        ),
        UserError(
            "runtime.damaged",
            _("The installed runtime is damaged: files of it are missing."),
            _("Press Repair to install it again."),
        ),
        UserError(
            "runtime.source",
            _("The extension is not complete: it does not hold FedSegCore."),
            _("Install the extension again."),
        ),
        UserError(
            "runtime.stopped",
            _("The installing process ended unexpectedly; nothing was changed."),
            _("Try again; if it happens again, report it with the log."),
        ),
        UserError(
            "runtime.install-failed",
            _("The packages could not be installed; nothing was changed."),
            _("The log says why. Try again, or report it with the log."),
        ),
    ]
