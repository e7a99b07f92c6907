"""Sites in network namespaces of their own, each with a cable to the coordinator that can be pulled (Linux, root).

Other than with a proxy the kernel's own network fails: nobody's connection is ended, packets just do not come through.
"""

import functools
import itertools
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_TOOLS = ("ip", "unshare", "nsenter")
_NOWHERE = "02:00:00:00:00:01"
_READY_S = 10.0
_numbers = itertools.count()


@dataclass
class _Site:
    """One site's namespace.

    Attributes:
        holder: the process that keeps the namespace; it ends with this process, and the cable with it.
        near: the coordinator's end of the cable; the site's is ``site``.
        addresses: two that the site may have; the first is the one in use.
    """

    holder: "subprocess.Popen[bytes]"
    near: str
    addresses: list[str]

    def ip(self, *words: str) -> None:
        """Run ``ip`` in the site's namespace."""
        _run("nsenter", "-t", str(self.holder.pid), "-n", "ip", *words)

    @property
    def namespace(self) -> str:
        return f"/proc/{self.holder.pid}/ns/net"


class Networks:
    """A namespace for every site, where this process's is the coordinator's.

    Args:
        sites: their names.

    Attributes:
        address: where the coordinator is for the sites; private to these networks.

    Raises:
        OSError: not allowed here, or a tool is missing.
    """

    def __init__(self, sites: Sequence[str]) -> None:
        self._subnet = _free_subnet()
        self.address = f"{self._subnet}.1"
        self._sites: dict[str, _Site] = {}
        try:
            for number, name in enumerate(sites):
                self._sites[name] = self._connect(number)
        except OSError:
            self.close()
            raise

    def _connect(self, number: int) -> _Site:
        holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        addresses = [f"{self._subnet}.{10 + number}", f"{self._subnet}.{110 + number}"]
        site = _Site(holder, f"fs{os.getpid():x}-{next(_numbers)}", addresses)
        try:
            _wait_for_namespace(site)
            _run("ip", "link", "add", site.near, "type", "veth", "peer", "name", "site", "netns", str(holder.pid))
            _run("ip", "address", "add", self.address, "peer", addresses[0], "dev", site.near)
            _run("ip", "link", "set", site.near, "up")
            _run("ip", "route", "add", addresses[1], "dev", site.near)
            site.ip("link", "set", "lo", "up")
            site.ip("address", "add", addresses[0], "peer", self.address, "dev", "site")
            site.ip("link", "set", "site", "up")
        except OSError:
            _end(holder)
            raise
        return site

    def close(self) -> None:
        """Give all namespaces up; processes in them are left without a network."""
        for site in self._sites.values():
            _end(site.holder)

    def namespace(self, site: str) -> str:
        """Return the file of a site's namespace."""
        return self._sites[site].namespace

    def cut(self) -> None:
        """Pull all cables: whoever sends is told that there is no network."""
        for name in self._sites:
            self.unplug(name)

    def unplug(self, site: str) -> None:
        """Pull one site's cable."""
        self._sites[site].ip("link", "set", "site", "down")

    def silence(self) -> None:
        """Lose what sites send, and tell nobody."""
        for site in self._sites.values():
            site.ip("neigh", "replace", self.address, "lladdr", _NOWHERE, "dev", "site", "nud", "permanent")

    def change_address(self, site: str) -> None:
        """Give a site another address, as a VPN does that was set up anew: its connections lead nowhere."""
        mine = self._sites[site]
        old, new = mine.addresses
        mine.ip("address", "del", old, "peer", self.address, "dev", "site")
        mine.ip("address", "add", new, "peer", self.address, "dev", "site")
        mine.addresses.reverse()

    def mend(self) -> None:
        """Put all cables back, and let everything through."""
        for site in self._sites.values():
            site.ip("link", "set", "site", "up")
            site.ip("neigh", "flush", "dev", "site", "nud", "all")


@functools.cache
def networks_allowed() -> bool:
    """Return whether this process may make networks of its own: tried once, with one."""
    if not all(shutil.which(tool) for tool in _TOOLS):
        return False
    try:
        Networks(["tried"]).close()
    except OSError:
        return False
    return True


def _free_subnet() -> str:
    taken = {one.address.rpartition(".")[0] for found in psutil.net_if_addrs().values() for one in found}
    while True:
        subnet = f"10.213.{secrets.randbelow(256)}"
        if subnet not in taken:
            return subnet


def _wait_for_namespace(site: _Site) -> None:
    mine = Path("/proc/self/ns/net").readlink()
    until = time.monotonic() + _READY_S
    while time.monotonic() < until and site.holder.poll() is None:
        if Path(site.namespace).readlink() != mine:
            return
        time.sleep(0.01)
    raise OSError("no network namespace can be made here")


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=30.0, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")


def _end(holder: "subprocess.Popen[bytes]") -> None:
    holder.kill()
    holder.wait()
    if holder.stdin is not None:
        holder.stdin.close()
