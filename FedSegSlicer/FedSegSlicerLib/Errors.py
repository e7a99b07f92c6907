"""Errors a user can act on, as the panel shows them."""


class UserError(Exception):
    """Something went wrong that a person can put right.

    Args:
        code: stable and dotted (``"volume.transformed"``); the documentation explains it under this name.
        cause: what is wrong, in plain words.
        remedy: what to do about it.
    """

    def __init__(self, code: str, cause: str, remedy: str) -> None:
        super().__init__(f"{cause} {remedy} [{code}]")
        self.code = code
        self.cause = cause
        self.remedy = remedy

    @property
    def isCancelled(self) -> bool:
        """Whether this is no error but the answer to the user's own cancelling."""
        return self.code == "cancelled"
