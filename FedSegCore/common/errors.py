"""Errors a person can act on: a stable code, what is wrong, and what to do about it."""


class FedSegError(Exception):
    """Base of every error FedSegSlicer raises on purpose.

    Args:
        code: stable, dotted, lower case (``"image.unreadable"``); README and tests refer to it.
        what: what is wrong, in plain words, without patient names or full paths.
        remedy: what the reader can do about it.
    """

    exit_code = 1

    def __init__(self, code: str, what: str, remedy: str) -> None:
        super().__init__(f"[{code}] {what} {remedy}")
        self.code = code
        self.what = what
        self.remedy = remedy


class UsageError(FedSegError):
    """The command or call itself was wrong (exit code 2)."""

    exit_code = 2


class BadInputError(FedSegError):
    """A file or value given by the user cannot be used (exit code 3)."""

    exit_code = 3


class CannotDoHereError(FedSegError):
    """This machine cannot do it now: device, disk, network, missing package (exit code 4)."""

    exit_code = 4


class CancelledError(FedSegError):
    """The user cancelled (exit code 130)."""

    exit_code = 130

    def __init__(self) -> None:
        super().__init__("cancelled", "Cancelled.", "What was finished before stays; start again whenever you like.")
