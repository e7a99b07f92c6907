"""The way to the coordinator below the encryption: proxy, name, port.

Every step either says in words what it measured or raises CannotDoHereError with the code of its layer.
"""

import http.client
import socket
import time
from base64 import b64encode
from urllib.parse import SplitResult, unquote, urlsplit

from FedSegCore.common.errors import CannotDoHereError


def split_address(address: str) -> tuple[str, int]:
    """Return (host, port) of ``host:port`` or ``[address]:port``."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


class Route:
    """How a coordinator is reached, as the site's own connection will reach it.

    Args:
        address: ``host:port`` of the coordinator.
        proxies: scheme → URL as ``urllib.request.getproxies_environment`` returns it.
        bypassed: whether the coordinator is reached without them.
        timeout_s: of each attempt.
    """

    def __init__(self, address: str, proxies: dict[str, str], bypassed: bool, timeout_s: float = 5.0) -> None:
        self.host, self.port = split_address(address)
        chosen = proxies.get("https") or proxies.get("all") or ""
        if chosen and "://" not in chosen:
            chosen = f"http://{chosen}"
        self._proxy = "" if bypassed else chosen
        self._skipped = chosen if bypassed else ""
        self._timeout_s = timeout_s

    def proxy(self) -> str:
        """Look whether a proxy stands between, and whether it lets the connection through.

        Raises:
            CannotDoHereError: ``check.proxy-kind``, ``check.proxy-unreachable``, ``check.proxy-login``,
                ``check.proxy-refuses``, ``check.proxy-cannot-reach``.
        """
        if not self._proxy:
            reason = "NO_PROXY names the coordinator" if self._skipped else "none is set"
            return f"The site connects without a proxy ({reason})."
        started = time.monotonic()
        self.dial().close()
        return f"The proxy {self._proxy_name()} opened the connection in {milliseconds_since(started)}."

    def name(self) -> str:
        """Look the coordinator's name up; raises CannotDoHereError ``check.name``."""
        if self._proxy:
            return "The proxy looks the name up."
        started = time.monotonic()
        found = self._addresses()
        if found == [self.host]:
            return f"{self.host} is an address; there is no name to look up."
        return f"{self.host} is {', '.join(found)} (looked up in {milliseconds_since(started)})."

    def reach(self) -> str:
        """Open a connection to the port; raises CannotDoHereError ``check.port-closed``, ``check.port-silent``."""
        if self._proxy:
            return f"Port {self.port} was reached through the proxy."
        started = time.monotonic()
        self.dial().close()
        return f"Port {self.port} answers in {milliseconds_since(started)}."

    def dial(self) -> socket.socket:
        """Return an open connection to the coordinator's port, by the proxy where there is one; raises as above."""
        return self._through_proxy() if self._proxy else self._directly()

    def _directly(self) -> socket.socket:
        self._addresses()
        try:
            return socket.create_connection((self.host, self.port), timeout=self._timeout_s)
        except TimeoutError as error:
            raise CannotDoHereError(
                "check.port-silent",
                f"Nothing answers at {self.host}, port {self.port}, within {self._timeout_s:g} s.",
                "A firewall drops the connection, or the host is off: ask IT to open this port outwards.",
            ) from error
        except OSError as error:
            raise CannotDoHereError(
                "check.port-closed",
                f"{self.host} refuses connections to port {self.port} ({error.strerror or error}).",
                "The coordinator is not started, the port is another one, or a firewall rejects it.",
            ) from error

    def _addresses(self) -> list[str]:
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            raise CannotDoHereError(
                "check.name",
                f"The name {self.host} cannot be looked up.",
                "Check its spelling and this computer's network; hospital networks often need a proxy or their VPN.",
            ) from error
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    def _through_proxy(self) -> socket.socket:
        proxy = urlsplit(self._proxy)
        port = _port(proxy)
        if proxy.scheme != "http" or not proxy.hostname or port is None:
            raise CannotDoHereError(
                "check.proxy-kind",
                f"The proxy that is set ({proxy.scheme or 'no scheme'}) is of a kind that cannot be used.",
                "Set HTTPS_PROXY to an address like http://proxy.example.org:3128.",
            )
        tunnel = http.client.HTTPConnection(proxy.hostname, port, timeout=self._timeout_s)
        tunnel.set_tunnel(self.host, self.port, headers=_login(proxy.username, proxy.password))
        try:
            tunnel.connect()
        except (OSError, http.client.HTTPException) as error:
            raise self._proxy_refusal(error) from error
        opened: socket.socket = tunnel.sock
        return opened

    def _proxy_refusal(self, error: Exception) -> CannotDoHereError:
        text = str(error)
        if not text.startswith("Tunnel connection failed:"):
            reason = getattr(error, "strerror", None) or type(error).__name__
            return CannotDoHereError(
                "check.proxy-unreachable",
                f"The proxy {self._proxy_name()} does not answer ({reason}).",
                "Correct HTTPS_PROXY, or name the coordinator in NO_PROXY where it is reached without one.",
            )
        answer = text.partition(": ")[2]
        if answer.startswith("407"):
            return CannotDoHereError(
                "check.proxy-login",
                f"The proxy {self._proxy_name()} asks for a name and password.",
                "Ask IT for an exception, or write them into HTTPS_PROXY (http://name:password@proxy:port).",
            )
        if answer.startswith("5"):
            return CannotDoHereError(
                "check.proxy-cannot-reach",
                f"The proxy {self._proxy_name()} cannot reach {self.host}, port {self.port} ({answer}).",
                "The coordinator is not started, or the proxy's own firewall stops it: ask IT.",
            )
        return CannotDoHereError(
            "check.proxy-refuses",
            f"The proxy {self._proxy_name()} refuses a connection to {self.host}, port {self.port} ({answer}).",
            "Ask IT to allow CONNECT to this host and port, or name the host in NO_PROXY.",
        )

    def _proxy_name(self) -> str:
        # never with the name and password that may stand in it
        proxy = urlsplit(self._proxy)
        return f"{proxy.hostname}:{_port(proxy)}"


def _port(proxy: SplitResult) -> int | None:
    try:
        return proxy.port or 80
    except ValueError:
        return None


def _login(user: str | None, password: str | None) -> dict[str, str]:
    if user is None:
        return {}
    pair = f"{unquote(user)}:{unquote(password or '')}".encode()
    return {"Proxy-Authorization": "Basic " + b64encode(pair).decode("ascii")}


def milliseconds_since(started: float) -> str:
    """Return the time since ``started`` (of ``time.monotonic``) in words."""
    return f"{(time.monotonic() - started) * 1000:.0f} ms"
