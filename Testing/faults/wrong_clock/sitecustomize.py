"""Loaded by every Python process of the fault harness: shifts ``datetime.now`` by the seconds in a file.

Flower's signatures of a SuperNode go by ``datetime.now``. The file ``$FLWR_HOME/clock-skew`` is looked at on every
call, so that a running process's clock can jump. The C library's time is not shifted: certificates are checked by it.
"""

import datetime as dt
import os
from pathlib import Path

_FILE = Path(os.environ.get("FLWR_HOME", "."), "clock-skew")
_real = dt.datetime


class _Kind(type(_real)):
    def __instancecheck__(cls, value):
        return isinstance(value, _real)


class _Shifted(_real, metaclass=_Kind):
    @classmethod
    def now(cls, tz=None):
        told = _real.now(tz)
        try:
            return told + dt.timedelta(seconds=float(_FILE.read_text()))
        except (OSError, ValueError):
            return told


if "FEDSEG_FAULTS" in os.environ:
    dt.datetime = _Shifted
