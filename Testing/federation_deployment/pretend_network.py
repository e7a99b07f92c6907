"""What can stand between a site and its coordinator, for real and on loopback: listeners, certificates, proxies."""

import datetime as dt
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import format_datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = dt.timedelta(days=1)


class Authority:
    """A certificate authority of its own, not made by the code under test."""

    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = (
            _builder(self.name, self.name, self.key.public_key(), -10 * DAY, 100 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def server(self, folder: Path, *names: str, begins: dt.timedelta = -DAY, ends: dt.timedelta = 30 * DAY) -> Path:
        """Return a file with a server's key and certificate for ``names``, valid from and to these times from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
        alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])
        certificate = (
            _builder(subject, self.name, key.public_key(), begins, ends)
            .add_extension(alternatives, critical=False)
            .sign(self.key, hashes.SHA256())
        )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file = folder / f"server-{x509.random_serial_number()}.pem"
        file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
        return file


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begins: dt.timedelta, ends: dt.timedelta
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@contextmanager
def listener(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Serve every connection to a port of 127.0.0.1 with ``serve``, and yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def loop() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=one, args=(connection,), daemon=True).start()

        def one(connection: socket.socket) -> None:
            connection.settimeout(10.0)
            with connection:
                try:
                    serve(connection)
                except OSError:
                    return

        threading.Thread(target=loop, daemon=True).start()
        yield listening.getsockname()[1]


def read_request(connection: socket.socket) -> bytes:
    """Return a request; a connection closed with something unread would be reset."""
    head = b""
    while b"\r\n\r\n" not in head:
        more = connection.recv(4096)
        head += more
        # as servers do: what does not begin like a request is answered at once
        if not more or not head[:1].isalpha():
            break
    length = re.search(rb"(?i)content-length: (\d+)", head)
    end = head.find(b"\r\n\r\n") + 4 + (int(length[1]) if length else 0)
    while len(head) < end and (more := connection.recv(4096)):
        head += more
    return head


def http_server(
    clock_ahead: dt.timedelta = dt.timedelta(0), answer: str = "404 Not Found\r\nContent-Length: 0", body: bytes = b""
) -> Callable[[socket.socket], None]:
    """Return what answers every request alike, with a clock that is so far ahead."""

    def serve(connection: socket.socket) -> None:
        read_request(connection)
        date = format_datetime(dt.datetime.now(dt.UTC) + clock_ahead, usegmt=True)
        connection.sendall(f"HTTP/1.1 {answer}\r\nDate: {date}\r\nConnection: close\r\n\r\n".encode() + body)

    return serve


def https_server(
    server: Path, clock_ahead: dt.timedelta = dt.timedelta(0), answer: str = "404 Not Found\r\nContent-Length: 0"
) -> Callable[[socket.socket], None]:
    """Return the same behind TLS, showing the certificate in the file ``server``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server)
    plain = http_server(clock_ahead, answer)

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as channel:
            plain(channel)

    return serve


def refusing_proxy(status: str) -> Callable[[socket.socket], None]:
    """Return a proxy that answers every CONNECT with ``status``."""

    def serve(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

    return serve


def forwarding_proxy(port: int, seen: list[str]) -> Callable[[socket.socket], None]:
    """Return a proxy that opens every CONNECT to ``port`` of 127.0.0.1, whatever name was asked for."""

    def serve(connection: socket.socket) -> None:
        seen.append(read_request(connection).split(b"\r\n")[0].decode())
        with socket.create_connection(("127.0.0.1", port)) as onward:
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_copy, args=(onward, connection), daemon=True)
            back.start()
            _copy(connection, onward)
            back.join(5.0)

    return serve


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return
