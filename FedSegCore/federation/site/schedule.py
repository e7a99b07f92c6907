"""The hours in which a site may train: a daily window of local time, over midnight where it ends before it begins."""

import re
from datetime import datetime, time, timedelta
from typing import Annotated

from pydantic import AfterValidator

_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


def _checked(text: str) -> str:
    start, end = _times(text)
    if start == end:
        raise ValueError("the hours must begin and end at different times")
    return text


Hours = Annotated[str, AfterValidator(_checked)]
"""``"19:00-07:00"``: from 19:00 until just before 07:00, local time."""


def within(hours: str, now: datetime) -> bool:
    """Return whether ``now`` (local time) lies in the window; its end does not."""
    start, end = _times(hours)
    if start < end:
        return start <= now.time() < end
    return now.time() >= start or now.time() < end


def next_change(hours: str, now: datetime) -> datetime:
    """Return when the window next opens (seen from outside it) or closes (from inside), in local time.

    Local times that a change of the clocks skips or repeats are taken as they stand on the clock.
    """
    start, end = _times(hours)
    wanted = end if within(hours, now) else start
    moment = datetime.combine(now.date(), wanted)
    return moment if moment > now else moment + timedelta(days=1)


def _times(hours: str) -> tuple[time, time]:
    found = _WINDOW.fullmatch(hours)
    if found is None:
        raise ValueError("give hours as 19:00-07:00")
    a, b, c, d = map(int, found.groups())
    return time(a, b), time(c, d)
