"""Names and addresses under which a coordinator is reached, as people write them and as certificates hold them."""

import ipaddress
import re

ADDRESS_PATTERN = r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?):[0-9]{1,5}$"
"""``host:port``; IPv6 as ``[address]:port``."""

_HOST = re.compile(
    r"(?=.{1,253}\Z)([A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?)(\.[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?)*"
)


def host_of(text: str) -> str:
    """Return a host name, IPv4 or IPv6 address (with or without brackets) in its plain form.

    Raises:
        ValueError: it is none of these: a wildcard, a URL, a name with other than ASCII letters, a zoned address.
    """
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        if "%" not in bare:
            return str(ipaddress.ip_address(bare))
    except ValueError:
        pass
    # all digits and dots would be an address that is wrong, 300.1.1.1
    if _HOST.fullmatch(text) is None or re.fullmatch(r"[0-9.]+", text):
        raise ValueError(f"{text!r} is no host name or address")
    return text.lower()


def address_of(host: str, port: int) -> str:
    """Return ``host:port``, an IPv6 address in brackets; raises ValueError as ``host_of``."""
    plain = host_of(host)
    return f"[{plain}]:{port}" if ":" in plain else f"{plain}:{port}"
