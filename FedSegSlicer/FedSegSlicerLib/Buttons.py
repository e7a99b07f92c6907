"""Buttons that say what they do, or why they cannot."""


def offerButton(button: object, does: str, *reasons: str) -> None:
    """Let a button be pressed where no reason speaks against it.

    Args:
        button: the button.
        does: what pressing it does.
        reasons: what keeps it from that, the first that is not ``""`` is told; none: it can be pressed.
    """
    reason = next(filter(None, reasons), "")
    button.enabled = not reason
    button.toolTip = reason or does
