"""A federation's own certificate authority and server certificate, made with ``cryptography`` alone."""

import datetime as dt
import ipaddress
import math
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from FedSegCore.common.errors import BadInputError, UsageError
from FedSegCore.federation.addresses import host_of
from FedSegCore.federation.private_files import private_folder, write_private

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Names every server certificate holds, for the coordinator's own calls."""

_CA_DAYS = 3650
_SERVER_DAYS = 825
_NOTICE_DAYS = 30
_CLOCK_SKEW = dt.timedelta(days=1)


def make_authority(folder: Path, federation: str) -> None:
    """Make the federation's certificate authority: ``ca.crt`` (given to sites) and ``ca.key`` (mode 0600)."""
    private_folder(folder)
    key = ec.generate_private_key(ec.SECP384R1())
    name = _name(f"{federation} certificate authority")
    certificate = (
        _builder(name, name, key.public_key(), _CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_signing_only(), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA384())
    )
    write_private(folder / "ca.key", _private_pem(key))
    write_private(folder / "ca.crt", certificate.public_bytes(serialization.Encoding.PEM))


def make_server_certificate(authority: Path, folder: Path, names: Sequence[str]) -> None:
    """Make ``server.pem`` and ``server.key`` (mode 0600) for all ``names`` and loopback, signed by ``authority``.

    Args:
        authority: folder that ``make_authority`` filled.
        folder: where the two files go.
        names: host names, IPv4 and IPv6 addresses under which sites reach the coordinator.

    Raises:
        UsageError: a name cannot stand in a certificate.
        BadInputError: ``coordinator.authority``: the authority's files are missing or damaged.
    """
    issuer, issuer_key = _authority(authority)
    alternatives = list(dict.fromkeys(_alternative(name) for name in (*names, *LOOPBACK)))
    key = ec.generate_private_key(ec.SECP384R1())
    end = issuer.not_valid_after_utc
    certificate = (
        _builder(_name("FedSegSlicer coordinator"), issuer.subject, key.public_key(), _SERVER_DAYS, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA384())
    )
    private_folder(folder)
    # The certificate last: a running listener looks at it and takes both.
    write_private(folder / "server.key", _private_pem(key))
    write_private(folder / "server.pem", certificate.public_bytes(serialization.Encoding.PEM))


def certificate_end(certificate: Path) -> dt.datetime:
    """Return until when a PEM certificate holds (UTC); raises BadInputError ``coordinator.certificate``."""
    return _read_certificate(certificate).not_valid_after_utc


def _read_certificate(certificate: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(certificate.read_bytes())
    except (OSError, ValueError) as error:
        raise BadInputError(
            "coordinator.certificate",
            "The coordinator's certificate is missing or damaged.",
            "Make a new one with 'fedseg coordinator renew'.",
        ) from error


def is_due(certificate: Path, authority: Path, now: dt.datetime | None = None) -> bool:
    """Return whether a new server certificate would help: this one expires within a month, or is not valid yet.

    A certificate that was made by a clock set ahead is not valid once the clock is right. One that lasts as long as its
    authority cannot be made to last longer.

    Args:
        certificate: the server's, PEM.
        authority: its authority's, PEM.
        now: the machine's time by default.

    Raises:
        BadInputError: ``coordinator.certificate``.
    """
    shown, moment = _read_certificate(certificate), now or dt.datetime.now(dt.UTC)
    if moment < shown.not_valid_before_utc:
        return True
    ends_soon = shown.not_valid_after_utc - moment <= dt.timedelta(days=_NOTICE_DAYS)
    return ends_soon and shown.not_valid_after_utc < certificate_end(authority)


def expiry_notice(certificate: Path, now: dt.datetime | None = None) -> str:
    """Return what to tell people of a server certificate that expires within a month or has expired; else empty."""
    end = certificate_end(certificate)
    left = end - (now or dt.datetime.now(dt.UTC))
    if left <= dt.timedelta(0):
        return f"The server certificate expired on {end:%Y-%m-%d}: no site can connect. Run 'fedseg coordinator renew'."
    if left <= dt.timedelta(days=_NOTICE_DAYS):
        days = math.ceil(left / dt.timedelta(days=1))
        return f"The server certificate expires in {days} days ({end:%Y-%m-%d}). Run 'fedseg coordinator renew'."
    return ""


def _authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise _no_authority() from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise _no_authority()
    return certificate, key


def _no_authority() -> BadInputError:
    return BadInputError(
        "coordinator.authority",
        "The federation's authority (folder ca) is missing or damaged.",
        "Restore ca.crt and ca.key from a backup; sites trust that authority and no other.",
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        plain = host_of(name)
    except ValueError as error:
        raise UsageError(
            "coordinator.host-name",
            f"{name!r} cannot stand in a certificate.",
            "Give a host name in ASCII letters (xn-- form for others) or an IP address.",
        ) from error
    try:
        return x509.IPAddress(ipaddress.ip_address(plain))
    except ValueError:
        return x509.DNSName(plain)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int, end: dt.datetime | None = None
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    last = now + dt.timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(last if end is None else min(last, end))
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _signing_only() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
