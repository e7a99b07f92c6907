"""A coordinator's folder: keys, certificates, database, admitted sites and runs, each at one place, for one owner."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from FedSegCore.common.errors import BadInputError, CannotDoHereError, UsageError
from FedSegCore.common.files import read_whole, write_text
from FedSegCore.common.names import Name
from FedSegCore.federation.addresses import address_of
from FedSegCore.federation.coordinator.certificates import make_authority, make_server_certificate
from FedSegCore.federation.private_files import keep_secret, private_folder
from FedSegCore.models.signing import fingerprint_of, load_or_make_key, public_key_of

Port = Annotated[int, Field(ge=1, le=65535)]

_LOCK_S = 30.0


class CoordinatorSettings(BaseModel):
    """What a coordinator was set up with.

    Attributes:
        federation: the federation's name.
        hosts: names and addresses under which sites reach the coordinator; all stand in its certificate.
        fleet_host: address the sites' listener is bound to; ``"::"`` takes IPv4 too where the system can do both.
        fleet_port: TCP port the sites connect to.
        control_port: TCP port on loopback for the coordinator's own calls.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    federation: Name
    hosts: Annotated[tuple[str, ...], Field(min_length=1)]
    fleet_host: str = "0.0.0.0"  # noqa: S104 - hospitals dial in; only the Fleet API is offered there
    fleet_port: Port = 9443
    control_port: Port = 9444

    @property
    def addresses(self) -> tuple[str, ...]:
        """``host:port`` of every host, as sites write it."""
        return tuple(address_of(host, self.fleet_port) for host in self.hosts)


def everywhere(hosts: Sequence[str]) -> str:
    """Return the address that takes connections to all ``hosts``: ``"::"`` where one is an IPv6 address."""
    return "::" if any(":" in host for host in hosts) else CoordinatorSettings.model_fields["fleet_host"].default


class AdmittedSite(BaseModel):
    """A site whose key was admitted.

    Attributes:
        name: the site's name in the federation.
        node_id: its id in Flower.
        fingerprint: SHA-256 of its public key, as the site reads it out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    node_id: int
    fingerprint: str


class _AdmittedSites(BaseModel):
    model_config = ConfigDict(extra="forbid")

    sites: list[AdmittedSite] = []


@dataclass(frozen=True)
class Fingerprints:
    """What a coordinator reads out by telephone, as ``ABCD-0123-…``.

    Attributes:
        invitations: of the key that signs invitations, compared by sites that join.
        releases: of the key that signs releases, compared by people who get a model as a file.
    """

    invitations: str
    releases: str


@dataclass(frozen=True)
class CoordinatorFolder:
    """The layout below ``path`` (mode 0700, everything made under umask 077)."""

    path: Path

    @classmethod
    def create(cls, path: Path, settings: CoordinatorSettings) -> "CoordinatorFolder":
        """Make a new coordinator: authority, server certificate, secrets.

        Raises:
            UsageError: there is a coordinator in ``path`` already, or a host name is no name.
            CannotDoHereError: the folder cannot be made private.
        """
        folder = cls(path.absolute())
        if folder.settings_file.exists():
            raise UsageError(
                "coordinator.exists", "This folder holds a coordinator already.", "Choose another folder, or start it."
            )
        private_folder(folder.path)
        make_authority(folder.path / "ca", settings.federation)
        make_server_certificate(folder.path / "ca", folder.path / "tls", settings.hosts)
        load_or_make_key(folder.identity_key)
        load_or_make_key(folder.release_key)
        keep_secret(folder.superexec_secret)
        keep_secret(folder.control_secret)
        for name in ("runs", "flower", "logs"):
            private_folder(folder.path / name)
        folder.keep_settings(settings)
        return folder

    @classmethod
    def open(cls, path: Path | str) -> "CoordinatorFolder":
        """Open an existing coordinator's folder; raises BadInputError if there is none."""
        folder = cls(Path(path).absolute())
        folder.settings()
        return folder

    @property
    def settings_file(self) -> Path:
        """File of the settings."""
        return self.path / "coordinator.json"

    @property
    def authority_certificate(self) -> Path:
        """PEM certificate that sites trust; the one file here that is given away."""
        return self.path / "ca" / "ca.crt"

    @property
    def server_certificate(self) -> Path:
        """PEM certificate the listeners show."""
        return self.path / "tls" / "server.pem"

    @property
    def server_key(self) -> Path:
        """Key of ``server_certificate``."""
        return self.path / "tls" / "server.key"

    @property
    def superexec_secret(self) -> Path:
        """Secret that lets our executor, and nobody else, take tasks."""
        return self.path / "superexec.secret"

    @property
    def control_secret(self) -> Path:
        """Secret that lets our own calls, and no other user of this machine, start runs and admit sites."""
        return self.path / "control.secret"

    @property
    def database(self) -> Path:
        """SuperLink's SQLite file."""
        return self.path / "superlink.db"

    @property
    def runs(self) -> Path:
        """Folder of runs, one folder each."""
        return self.path / "runs"

    @property
    def releases(self) -> Path:
        """Folder of model releases."""
        return self.path / "releases"

    @property
    def release_key(self) -> Path:
        """Key that signs releases; another one than any that serves connections."""
        return self.path / "release.key"

    @property
    def identity_key(self) -> Path:
        """Key that signs invitations, and nothing else."""
        return self.path / "identity.key"

    def fingerprints(self) -> Fingerprints:
        """Return what people compare by telephone; raises BadInputError ``key.*`` if a key cannot be used."""
        keys = (load_or_make_key(file) for file in (self.identity_key, self.release_key))
        return Fingerprints(*(fingerprint_of(public_key_of(key)) for key in keys))

    @property
    def invitations(self) -> Path:
        """Folder of the invitations that were made, ``<id>.json``."""
        return private_folder(self.path / "invitations")

    @property
    def requests(self) -> Path:
        """Folder of the requests to join that came and wait, ``<hash of the key>.json``."""
        return private_folder(self.path / "requests")

    @property
    def logs(self) -> Path:
        """Folder of the children's output."""
        return self.path / "logs"

    @property
    def flower_home(self) -> Path:
        """FLWR_HOME of the coordinator's children."""
        return self.path / "flower"

    def settings(self) -> CoordinatorSettings:
        """Return the settings; raises BadInputError where they are missing or damaged."""
        try:
            return CoordinatorSettings.model_validate_json(read_whole(self.settings_file))
        except (OSError, ValidationError) as error:
            raise BadInputError(
                "coordinator.folder",
                f"The folder {self.path.name} holds no coordinator.",
                "Make one with 'fedseg coordinator init', or give its folder.",
            ) from error

    def keep_settings(self, settings: CoordinatorSettings) -> None:
        """Write the settings."""
        write_text(self.settings_file, settings.model_dump_json(indent=2) + "\n", private=True)

    @contextmanager
    def changing_sites(self) -> Iterator[None]:
        """Hold the list of sites against other commands; raises CannotDoHereError ``coordinator.busy``."""
        try:
            with FileLock(self.path / "sites.lock", timeout=_LOCK_S, mode=0o600):
                yield
        except Timeout as error:
            raise CannotDoHereError(
                "coordinator.busy", "Another command is changing the list of sites.", "Try again when it has ended."
            ) from error

    def sites(self) -> tuple[AdmittedSite, ...]:
        """Return the admitted sites; raises BadInputError ``coordinator.sites-damaged``."""
        file = self.path / "sites.json"
        if not file.exists():
            return ()
        try:
            return tuple(_AdmittedSites.model_validate_json(read_whole(file)).sites)
        except (OSError, ValidationError) as error:
            raise BadInputError(
                "coordinator.sites-damaged",
                "The list of admitted sites cannot be read.",
                "Restore sites.json in the coordinator's folder from a backup.",
            ) from error

    def keep_sites(self, sites: tuple[AdmittedSite, ...]) -> None:
        """Write the list of admitted sites."""
        text = _AdmittedSites(sites=list(sites)).model_dump_json(indent=2)
        write_text(self.path / "sites.json", text + "\n", private=True)
