"""The encryption of the way to the coordinator: is it there, whose certificate, for which name and time, which clock.

Every step either says in words what it measured or raises FedSegError with the code of its layer. What is looked at
before the certificate is proved (who shows it, which time it tells) serves to explain a refusal and nothing else.
"""

import http.client
import ssl
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from FedSegCore.common.errors import BadInputError, CannotDoHereError
from FedSegCore.federation.site.preflight_route import Route

CLOCK_AHEAD_S = 5.0
"""Flower takes a signature that is this much older than the coordinator's clock, or from this far in its future."""
CLOCK_BEHIND_S = 300.0

_OUT_OF_TIME = {9: "is not valid yet", 10: "has expired"}
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""
_OURS = " certificate authority"
_MAX_DATE_READ_S = 10.0


class Encryption:
    """What answers at the end of a route; the steps are to be asked in the order in which they stand here.

    Args:
        route: the way there.
        authority: PEM file of the authority that the site trusts.
    """

    def __init__(self, route: Route, authority: Path) -> None:
        self._route = route
        self._authority = authority
        self._shown: x509.Certificate | None = None

    def encryption(self) -> str:
        """Agree on encryption with whoever answers, trusting nobody yet, and keep the certificate that is shown.

        Raises:
            CannotDoHereError: ``check.not-encrypted``, ``check.tls-failed``, ``check.tls-cut``.
        """
        with self._encrypted(_unverified()) as channel:
            shown = channel.getpeercert(binary_form=True) or b""
            version = channel.version()
        try:
            self._shown = x509.load_der_x509_certificate(shown)
        except ValueError as error:
            raise CannotDoHereError(
                "check.tls-failed",
                "The certificate that is shown cannot be read.",
                "Check the port, and that nothing between changes the connection.",
            ) from error
        return f"The connection is encrypted ({version}); the certificate shown is signed by {_issuer(self._shown)}."

    def clock(self) -> str:
        """Compare this computer's clock with the time whoever answers tells.

        Raises:
            CannotDoHereError: ``check.clock``: Flower would refuse the site's signatures, or a certificate seems to be
                out of its time.
        """
        told = self._told_time()
        if told is None:
            return "Whoever answers tells no time; the clock was not compared."
        here = time.time()
        # the told time has whole seconds: half a second is the best guess of the rest
        ahead = here - (told + 0.5)
        if -CLOCK_BEHIND_S < ahead < CLOCK_AHEAD_S:
            return f"This computer's clock is {_apart(ahead)} the coordinator's."
        raise CannotDoHereError(
            "check.clock",
            f"This computer's clock is {_apart(ahead)} the coordinator's: {_moment(here)} here, {_moment(told)} there.",
            "Let this computer set its clock from the network (time synchronisation); the coordinator likewise.",
        )

    def authority(self) -> str:
        """Check that the certificate shown was signed by the authority that the site trusts.

        Raises:
            BadInputError: ``check.authority-unreadable``.
            CannotDoHereError: ``check.authority-expired``, ``check.authority-renewed``, ``check.wrong-authority``,
                ``check.tls-intercepted``.
        """
        trusted = self._trusted()
        if trusted.not_valid_after_utc < datetime.now(UTC):
            raise CannotDoHereError(
                "check.authority-expired",
                f"The federation's authority that this site trusts ended on {trusted.not_valid_after_utc:%Y-%m-%d}.",
                "Ask the coordinator for a new invitation.",
            )
        context = self._verifying()
        context.check_hostname = False
        code = self._verify_code(context)
        if code is not None and code not in _OUT_OF_TIME:
            raise self._unknown_issuer(trusted)
        return f"The certificate is signed by the authority this site trusts ({_common_name(trusted.subject)})."

    def certificate(self) -> str:
        """Check the certificate's name and time, exactly as the site's connection will.

        Raises:
            CannotDoHereError: ``check.certificate-name``, ``check.certificate-time``.
        """
        assert self._shown is not None, "encryption() comes first"
        code = self._verify_code(self._verifying())
        if code is None:
            until = self._shown.not_valid_after_utc
            days = (until - datetime.now(UTC)).days
            return f"The certificate names {self._route.host} and is valid until {until:%Y-%m-%d} ({days} days)."
        if code in _OUT_OF_TIME:
            bounds = (
                f"{self._shown.not_valid_before_utc:%Y-%m-%d %H:%M} to {self._shown.not_valid_after_utc:%Y-%m-%d %H:%M}"
            )
            raise CannotDoHereError(
                "check.certificate-time",
                f"The coordinator's certificate {_OUT_OF_TIME[code]}: it is valid from {bounds} UTC.",
                "Ask the coordinator to renew its server certificate; sites need nothing new for that.",
            )
        raise CannotDoHereError(
            "check.certificate-name",
            f"The coordinator's certificate is not for {self._route.host} but for {', '.join(_names(self._shown))}.",
            "Use one of these names in the site's settings, or ask the coordinator to add this one and renew.",
        )

    def _encrypted(self, context: ssl.SSLContext) -> ssl.SSLSocket:
        opened = self._route.dial()
        try:
            return context.wrap_socket(opened, server_hostname=self._route.host)
        except ssl.SSLCertVerificationError:
            opened.close()
            raise
        except ssl.SSLError as error:
            opened.close()
            if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNSUPPORTED_PROTOCOL"):
                raise CannotDoHereError(
                    "check.not-encrypted",
                    f"What answers at port {self._route.port} speaks no encryption that the site takes.",
                    "Check the port: this is another service, or a proxy that answers in the coordinator's place.",
                ) from error
            raise _cut(error) from error
        except OSError as error:
            opened.close()
            raise _cut(error) from error

    def _verify_code(self, context: ssl.SSLContext) -> int | None:
        """Return OpenSSL's reason for refusing the certificate; None where it is taken."""
        try:
            self._encrypted(context).close()
        except ssl.SSLCertVerificationError as error:
            return error.verify_code
        return None

    def _verifying(self) -> ssl.SSLContext:
        # as Flower's client makes it
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cafile=str(self._authority))
        return context

    def _trusted(self) -> x509.Certificate:
        try:
            return x509.load_pem_x509_certificate(self._authority.read_bytes())
        except (OSError, ValueError) as error:
            raise BadInputError(
                "check.authority-unreadable",
                "The certificate of the federation's authority cannot be read (ca.crt in the site's folder).",
                "Join with the invitation again, or copy the coordinator's ca.crt there.",
            ) from error

    def _unknown_issuer(self, trusted: x509.Certificate) -> CannotDoHereError:
        assert self._shown is not None, "encryption() comes first"
        issuer = _issuer(self._shown)
        if self._shown.issuer == trusted.subject:
            return CannotDoHereError(
                "check.authority-renewed",
                f"The federation's authority ({issuer}) has another key than the one this site trusts.",
                "The coordinator was set up anew, or somebody pretends to be it: telephone, then get an invitation.",
            )
        if issuer.endswith(_OURS):
            return CannotDoHereError(
                "check.wrong-authority",
                f"The certificate is signed by {issuer}, another federation's than this site trusts"
                f" ({_common_name(trusted.subject)}).",
                "The address or the site's ca.crt belongs to another federation: compare both with the invitation.",
            )
        return CannotDoHereError(
            "check.tls-intercepted",
            f"The certificate is signed by {issuer}, not by the federation's authority: something between this computer"
            " and the coordinator opens the encryption (a hospital's inspecting proxy does that).",
            "Ask IT to exempt the coordinator's host and port from TLS inspection; the site refuses it.",
        )

    def _told_time(self) -> float | None:
        with self._encrypted(_unverified()) as channel:
            channel.settimeout(_MAX_DATE_READ_S)
            asked = http.client.HTTPConnection(self._route.host, self._route.port)
            asked.sock = channel
            try:
                asked.request("GET", "/")
                date = asked.getresponse().headers.get("Date")
            except (OSError, http.client.HTTPException):
                return None
        try:
            told = parsedate_to_datetime(date or "")
            return (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            return None


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _cut(error: OSError) -> CannotDoHereError:
    reason = getattr(error, "reason", None) or error.strerror or type(error).__name__
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        return CannotDoHereError(
            "check.tls-failed",
            f"No encryption could be agreed on ({reason}).",
            "Check the port, and that nothing between changes the connection.",
        )
    return CannotDoHereError(
        "check.tls-cut",
        f"The connection was cut while encryption was being agreed on ({reason}).",
        "A firewall that inspects connections does that: ask IT to exempt the coordinator's host and port.",
    )


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME) or name.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    text = str(found[0].value) if found else name.rfc4514_string()
    return "".join(sign if sign.isprintable() else "?" for sign in text)[:100] or "nobody named"


def _issuer(certificate: x509.Certificate) -> str:
    return _common_name(certificate.issuer)


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return [_common_name(certificate.subject)]
    return [str(name) for kind in (x509.DNSName, x509.IPAddress) for name in held.get_values_for_type(kind)]


def _apart(ahead_s: float) -> str:
    size = abs(ahead_s)
    if size < 1.5:
        return "within a second or two of"
    amount = f"{size:.0f} s" if size < 120 else f"{size / 60:.0f} min" if size < 7200 else f"{size / 3600:.0f} h"
    return f"{amount} {'ahead of' if ahead_s > 0 else 'behind'}"


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
