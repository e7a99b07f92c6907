"""Memory in large pages for processes that compute on the processor."""

import platform
from collections.abc import Mapping

VARIABLE = "GLIBC_TUNABLES"
_NAME = "glibc.malloc.hugetlb"
_SINCE = (2, 35)


def with_huge_pages(environment: Mapping[str, str]) -> dict[str, str]:
    """Return ``environment`` for a child whose large arrays shall lie in large pages where Linux offers them.

    torch gets and gives back every array of a step; the system clears each of its pages of 4 KiB anew, which takes a
    tenth of a training step (``Testing/benchmarks/huge_pages.py``). Freed memory is given back as ever. What the user
    has set of it stays. Elsewhere than under glibc nothing is changed.
    """
    said = environment.get(VARIABLE, "")
    if not _is_new_glibc(*platform.libc_ver()) or _NAME in said:
        return dict(environment)
    return {**environment, VARIABLE: ":".join(filter(None, (said, f"{_NAME}=1")))}


def _is_new_glibc(name: str, version: str) -> bool:
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    return name == "glibc" and numbers >= _SINCE
