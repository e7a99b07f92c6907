"""``site check``: every layer fails for real, on loopback, and is named with its cure."""

import datetime as dt
import gzip
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pretend_network import (
    DAY,
    Authority,
    forwarding_proxy,
    http_server,
    https_server,
    listener,
    read_request,
    refusing_proxy,
)

from FedSegCore.common.progress import Progress
from FedSegCore.federation.process_group import free_ports
from FedSegCore.federation.site import strict_http
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.preflight import Finding, preflight
from FedSegCore.federation.site.preflight_machine import Needs

NETWORK = ("proxy", "name", "port", "encryption", "clock", "authority", "certificate", "admission")
EASY = Needs(disk_bytes=1, memory_bytes=1, timeout_s=1.0)
EXAMPLE = "coordinator.example"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("tiny certificate authority")


@pytest.fixture
def points_to(site: SiteFolder, authority: Authority) -> Callable[[str], SiteFolder]:
    """Return ``points_to(address)``: the site, trusting ``authority`` and told to connect there."""
    site.authority_certificate.write_bytes(authority.pem())

    def told(address: str) -> SiteFolder:
        settings = site.settings().model_copy(update={"coordinator": address})
        site.settings_file.write_text(settings.model_dump_json())
        return site

    return told


def check(site: SiteFolder, needs: Needs = EASY) -> dict[str, Finding]:
    return {found.layer: found for found in preflight(site, Progress(), needs)}


def fails(site: SiteFolder, layer: str, code: str) -> Finding:
    """Check that ``layer`` is the first of the network's to fail, with ``code``, and that none behind it was tried."""
    found = check(site)
    place = NETWORK.index(layer)
    assert all(found[name].ok for name in NETWORK[:place]), found
    assert (found[layer].ok, found[layer].code) == (False, code), found[layer]
    assert found[layer].remedy
    assert not any(found[name].tried for name in NETWORK[place + 1 :])
    assert all(f"{layer} comes first" in found[name].words for name in NETWORK[place + 1 :])
    return found[layer]


def test_a_name_that_does_not_exist(points_to: Callable[[str], SiteFolder]) -> None:
    # .invalid never exists (RFC 2606)
    assert "no-such-host.invalid" in fails(points_to("no-such-host.invalid:9443"), "name", "check.name").words


def test_a_port_where_nothing_listens(points_to: Callable[[str], SiteFolder]) -> None:
    (port,) = free_ports(1)
    assert str(port) in fails(points_to(f"127.0.0.1:{port}"), "port", "check.port-closed").words


@pytest.mark.skipif(sys.platform != "linux", reason="what a full backlog does differs between systems")
def test_a_port_where_nobody_answers(points_to: Callable[[str], SiteFolder]) -> None:
    """A full backlog: the kernel drops further connections as a firewall does."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        waiting = []
        for _ in range(4):
            other = socket.socket()
            other.setblocking(False)
            other.connect_ex(deaf.getsockname())
            waiting.append(other)
        fails(points_to(f"127.0.0.1:{deaf.getsockname()[1]}"), "port", "check.port-silent")
        for other in waiting:
            other.close()


def test_a_server_without_encryption(points_to: Callable[[str], SiteFolder]) -> None:
    with listener(http_server()) as port:
        fails(points_to(f"127.0.0.1:{port}"), "encryption", "check.not-encrypted")


@pytest.mark.parametrize("behave", [lambda connection: connection.close(), lambda connection: time.sleep(3.0)])
def test_a_connection_that_is_cut_or_swallowed(
    points_to: Callable[[str], SiteFolder], behave: Callable[[socket.socket], None]
) -> None:
    with listener(behave) as port:
        fails(points_to(f"127.0.0.1:{port}"), "encryption", "check.tls-cut")


@pytest.mark.parametrize(
    ("issuer", "code"),
    [
        ("Zscaler Intermediate Root CA", "check.tls-intercepted"),
        ("tiny certificate authority", "check.authority-renewed"),
        ("other certificate authority", "check.wrong-authority"),
    ],
)
def test_a_certificate_of_another_authority(
    points_to: Callable[[str], SiteFolder], tmp_path: Path, issuer: str, code: str
) -> None:
    """Interception, a coordinator set up anew, and another federation's are told apart by who signed."""
    shown = Authority(issuer).server(tmp_path, "127.0.0.1")
    with listener(https_server(shown)) as port:
        assert issuer in fails(points_to(f"127.0.0.1:{port}"), "authority", code).words


def test_a_certificate_file_that_is_none(
    points_to: Callable[[str], SiteFolder], authority: Authority, tmp_path: Path
) -> None:
    with listener(https_server(authority.server(tmp_path, "127.0.0.1"))) as port:
        site = points_to(f"127.0.0.1:{port}")
        site.authority_certificate.write_text("not a certificate")
        fails(site, "authority", "check.authority-unreadable")


def test_a_certificate_for_another_name(
    points_to: Callable[[str], SiteFolder], authority: Authority, tmp_path: Path
) -> None:
    with listener(https_server(authority.server(tmp_path, EXAMPLE, "192.0.2.7"))) as port:
        found = fails(points_to(f"127.0.0.1:{port}"), "certificate", "check.certificate-name")
    for name in ("127.0.0.1", EXAMPLE, "192.0.2.7"):
        assert name in found.words


@pytest.mark.parametrize(
    ("begins", "ends", "words"), [(-9 * DAY, -DAY, "has expired"), (DAY, 9 * DAY, "not valid yet")]
)
def test_a_certificate_out_of_its_time(
    points_to: Callable[[str], SiteFolder],
    authority: Authority,
    tmp_path: Path,
    begins: dt.timedelta,
    ends: dt.timedelta,
    words: str,
) -> None:
    with listener(https_server(authority.server(tmp_path, "127.0.0.1", begins=begins, ends=ends))) as port:
        assert words in fails(points_to(f"127.0.0.1:{port}"), "certificate", "check.certificate-time").words


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (dt.timedelta(minutes=-10), "10 min ahead of"),
        (dt.timedelta(hours=5), "5 h behind"),
        (dt.timedelta(seconds=-30), "30 s ahead"),
    ],
)
def test_a_clock_that_is_wrong(
    points_to: Callable[[str], SiteFolder], authority: Authority, tmp_path: Path, there: dt.timedelta, words: str
) -> None:
    with listener(https_server(authority.server(tmp_path, "127.0.0.1"), there)) as port:
        assert words in fails(points_to(f"127.0.0.1:{port}"), "clock", "check.clock").words


@pytest.mark.parametrize(
    ("date", "words"),
    [
        ("yesterday", "tells no time"),
        ("Mon, 99 Foo 2026 99:99:99 GMT", "tells no time"),
        ("Fri, 31 Dec 9999 23:59:59 -0000", "9999-12-31"),
    ],
)
def test_a_time_that_is_none_is_told_or_left_out(
    points_to: Callable[[str], SiteFolder], tmp_path: Path, date: str, words: str
) -> None:
    answer = f"404 Not Found\r\nDate: {date}\r\nContent-Length: 0"
    shown = Authority("of somebody else").server(tmp_path, "127.0.0.1")
    with listener(https_server(shown, answer=answer)) as port:
        assert words in check(points_to(f"127.0.0.1:{port}"))["clock"].words


def test_a_clock_within_flowers_tolerance_passes(points_to: Callable[[str], SiteFolder], tmp_path: Path) -> None:
    shown = Authority("of somebody else").server(tmp_path, "127.0.0.1")
    with listener(https_server(shown, dt.timedelta(seconds=100))) as port:
        found = check(points_to(f"127.0.0.1:{port}"))
    assert found["clock"].ok
    assert "100 s behind" in found["clock"].words


def test_another_service_than_a_coordinator(
    points_to: Callable[[str], SiteFolder], authority: Authority, tmp_path: Path
) -> None:
    with listener(https_server(authority.server(tmp_path, "127.0.0.1"))) as port:
        found = fails(points_to(f"127.0.0.1:{port}"), "admission", "check.not-a-coordinator")
    assert "404" in found.words


@pytest.mark.parametrize("status", ["302 Found", "307 Temporary Redirect"])
def test_a_coordinator_cannot_send_a_site_anywhere_else(
    points_to: Callable[[str], SiteFolder], authority: Authority, tmp_path: Path, status: str
) -> None:
    """A redirect into the hospital's own network is not followed, neither by the check nor by Flower's client."""
    called: list[bytes] = []
    with listener(lambda connection: called.append(read_request(connection))) as inside:
        answer = f"{status}\r\nLocation: http://127.0.0.1:{inside}/reboot\r\nContent-Length: 0"
        with listener(https_server(authority.server(tmp_path, "127.0.0.1"), answer=answer)) as port:
            found = fails(points_to(f"127.0.0.1:{port}"), "admission", "check.not-a-coordinator")
    assert status[:3] in found.words
    assert called == []


@pytest.mark.parametrize(
    ("answer", "body", "taken"),
    [
        ("200 OK", b"x" * 2000, True),
        ("200 OK", b"x" * 2001, False),
        ("200 OK\r\nTransfer-Encoding: chunked", b"7d1\r\n" + b"x" * 2001 + b"\r\n0\r\n\r\n", False),
        ("200 OK\r\nContent-Encoding: gzip", gzip.compress(b"x" * 1000, mtime=0), False),
        ("500 Internal Server Error", b"x" * 2001, False),
    ],
    ids=["at the bound", "over the bound", "over the bound in chunks", "compressed", "over the bound in an error"],
)
def test_no_answer_is_read_beyond_a_bound(
    monkeypatch: pytest.MonkeyPatch, answer: str, body: bytes, taken: bool
) -> None:
    monkeypatch.setattr(strict_http, "MOST_BYTES", 2000)
    with listener(http_server(answer=answer, body=body)) as port, strict_http.StrictClient() as client:
        request = client.build_request("POST", f"http://127.0.0.1:{port}/", content=b"")
        if taken:
            assert client.send(request).content == body
        else:
            with pytest.raises(strict_http.AnswerRefusedError):
                client.send(request)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("403 Forbidden", "check.proxy-refuses"),
        ("407 Proxy Authentication Required", "check.proxy-login"),
        ("502 Bad Gateway", "check.proxy-cannot-reach"),
    ],
)
def test_a_proxy_that_does_not_let_through(
    points_to: Callable[[str], SiteFolder], monkeypatch: pytest.MonkeyPatch, status: str, code: str
) -> None:
    with listener(refusing_proxy(status)) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://someone:secret@127.0.0.1:{port}")
        found = fails(points_to(f"{EXAMPLE}:9443"), "proxy", code)
    assert f"127.0.0.1:{port}" in found.words
    assert "secret" not in found.words + found.remedy


def test_a_proxy_that_is_not_there_or_of_another_kind(
    points_to: Callable[[str], SiteFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    (port,) = free_ports(1)
    monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{port}")
    fails(points_to(f"{EXAMPLE}:9443"), "proxy", "check.proxy-unreachable")
    for other in (f"socks5://127.0.0.1:{port}", "http://proxy:none", "http://"):
        monkeypatch.setenv("HTTPS_PROXY", other)
        fails(points_to(f"{EXAMPLE}:9443"), "proxy", "check.proxy-kind")
    with listener(lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")) as ssh:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{ssh}")
        fails(points_to(f"{EXAMPLE}:9443"), "proxy", "check.proxy-unreachable")
    monkeypatch.setenv("NO_PROXY", EXAMPLE)
    assert "NO_PROXY" in check(points_to(f"{EXAMPLE}:9443"))["proxy"].words


def test_through_a_proxy_the_certificate_is_checked_all_the_same(
    points_to: Callable[[str], SiteFolder], authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    shown = authority.server(tmp_path, EXAMPLE)
    with listener(https_server(shown)) as behind, listener(forwarding_proxy(behind, seen)) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        found = check(points_to(f"{EXAMPLE}:9443"))
    assert seen[0].startswith(f"CONNECT {EXAMPLE}:9443 ")
    assert all(found[name].ok for name in NETWORK[:-1])
    # Flower's own client went through the proxy too, and met what is no coordinator
    assert found["admission"].code == "check.not-a-coordinator"
