"""Packages through a proxy and from a server with a certificate authority of its own, all of it on this computer."""

import http
import os
import ssl
import sys
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from test_runtime_installation import install, make_wheel, slicer_python, source  # noqa: F401

sys.path.append(str(Path(__file__).resolve().parents[1] / "federation_deployment"))
from pretend_network import Authority, forwarding_proxy, listener, read_request, refusing_proxy

HOST = "packages.example"  # a name that nobody resolves: only the proxy knows where it is


@pytest.fixture
def authority(tmp_path):
    made = Authority("A hospital's own")
    (tmp_path / "ca.pem").write_bytes(made.pem())
    return made


@contextmanager
def serving(authority, folder, pages):
    """Serve ``pages`` (bytes by path) behind TLS; yield the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.server(folder, HOST, "127.0.0.1"))

    def serve(connection):
        with context.wrap_socket(connection, server_side=True) as channel:
            path = read_request(channel).split()[1].decode()
            body = pages.get(path, b"")
            kind = "text/html" if path.endswith("/") else "application/octet-stream"
            status = http.HTTPStatus.OK if body else http.HTTPStatus.NOT_FOUND
            head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}"
            channel.sendall(f"{head}\r\nConnection: close\r\n\r\n".encode() + body)

    with listener(serve) as port:
        yield port


def index_pages(index, wheel):
    """Return the pages of a package index below ``index`` that has one wheel."""
    name, file = wheel.name.partition("-")[0], quote(wheel.name)
    return {f"{index}/{name}/": f'<a href="/{file}">{wheel.name}</a>'.encode(), f"/{file}": wheel.read_bytes()}


@pytest.fixture
def package_server(authority, tmp_path):
    """Yield the port of a package index behind TLS that has one small package."""
    served = tmp_path / "served"
    served.mkdir()
    with serving(authority, tmp_path, index_pages("/simple", make_wheel(served, "tinyone", "value = 42\n"))) as port:
        yield port


@pytest.fixture
def pip_alone(monkeypatch):
    """Let nothing of this computer's own settings reach pip."""
    for name in os.environ:
        if name.upper().startswith("PIP_") or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
    for name, value in {"PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "1", "PIP_TIMEOUT": "10"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def fetch(slicer_python, source, tmp_path, pip_alone, monkeypatch):  # noqa: F811
    """Return what installs the small package from an index, with nothing of this computer's own settings."""

    def fetch_(index, **order):
        monkeypatch.setenv("PIP_INDEX_URL", index)
        return install(slicer_python, source, "", tmp_path / "runtime", **order).end()

    return fetch_


def test_a_package_comes_from_a_server_with_its_own_authority(fetch, package_server, tmp_path):
    index = f"https://127.0.0.1:{package_server}/simple"
    assert fetch(index)["code"] == "runtime.tls"
    assert fetch(index, ca=str(tmp_path / "ca.pem"))["event"] == "ready"
    (packages,) = (tmp_path / "runtime").glob("packages-*")
    assert (packages / "tinyone" / "__init__.py").read_text() == "value = 42\n"


def test_a_package_comes_through_the_proxy_only(fetch, package_server, tmp_path):
    seen, index, ca = [], f"https://{HOST}/simple", str(tmp_path / "ca.pem")
    assert fetch(index, ca=ca)["code"] == "runtime.network"
    with listener(forwarding_proxy(package_server, seen)) as port:
        assert fetch(index, ca=ca, proxy=f"http://127.0.0.1:{port}")["event"] == "ready"
    assert seen
    assert {line.split(" HTTP")[0] for line in seen} == {f"CONNECT {HOST}:443"}


def test_a_proxy_that_refuses_is_told(fetch, tmp_path):
    with listener(refusing_proxy("407 Proxy Authentication Required")) as port:
        told = fetch(f"https://{HOST}/simple", proxy=f"http://127.0.0.1:{port}")
    assert told["code"] == "runtime.proxy"
