"""Whose releases a site uses: its own coordinator's, and those of keys that its people name."""

from pathlib import Path

from FedSegCore.models.trust import read_public_key_file


def trusted_release_keys(site: Path | None, key_file: Path | None) -> frozenset[bytes] | None:
    """Return the raw public keys whose releases may be used; None where nobody has named any.

    Args:
        site: a site's folder; the release key of the invitation it joined with is trusted. A site that was set up
            without an invitation names none.
        key_file: a public key file that is trusted too.

    Raises:
        BadInputError: ``key.*``, ``site.folder``, ``invitation.*``.
    """
    keys = set() if key_file is None else {read_public_key_file(key_file)}
    if site is not None:
        from FedSegCore.federation.site.folder import SiteFolder

        invitation = SiteFolder.open(site).invitation()
        keys |= set() if invitation is None else {invitation.release_key}
    return frozenset(keys) or None
