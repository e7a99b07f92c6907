"""Large pages: only under a glibc that knows them, and never against what the user has set."""

import platform

import pytest

from FedSegCore.common.huge_pages import VARIABLE, with_huge_pages


@pytest.mark.parametrize(
    ("library", "said", "expected"),
    [
        (("glibc", "2.36"), None, "glibc.malloc.hugetlb=1"),
        (("glibc", "2.35"), "glibc.malloc.check=1", "glibc.malloc.check=1:glibc.malloc.hugetlb=1"),
        (("glibc", "2.39"), "glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0"),
        (("glibc", "2.31"), None, None),
        (("", ""), None, None),
        (("musl", "1.2"), "x=1", "x=1"),
    ],
)
def test_the_environment_asks_for_large_pages_where_they_are_known(library, said, expected, monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: library)
    given = {"A": "1"} if said is None else {"A": "1", VARIABLE: said}
    made = with_huge_pages(given)
    assert made.pop(VARIABLE, None) == expected
    assert made == {"A": "1"}
