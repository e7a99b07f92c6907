"""A site's folder: its key, what it trusts, its cohort, and what its processes say to each other; mode 0700."""

import json
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from FedSegCore.common.errors import BadInputError, UsageError
from FedSegCore.common.files import sha256_of, write_text
from FedSegCore.common.names import Name
from FedSegCore.federation.addresses import ADDRESS_PATTERN
from FedSegCore.federation.bundle import bundle_digest, thin_bundle
from FedSegCore.federation.invitation import Invitation, open_invitation
from FedSegCore.federation.private_files import keep_secret, private_folder, write_private
from FedSegCore.federation.site.journal import Journal
from FedSegCore.federation.site.journal_entries import Enrolled
from FedSegCore.federation.site.keys import make_site_key
from FedSegCore.federation.site.policy import SitePolicy, read_policy, write_policy

SOCKET_PREFIX = "fedseg-"
"""Start of the name of the private folder that holds a trainer's socket."""


STORE_COHORT = Path("store/cohort.json")
"""Where a site's own store of cases writes the cohort file, relative to the site's folder."""


class SiteSettings(BaseModel):
    """What a site was set up with.

    Attributes:
        name: the site's name in the federation.
        coordinator: ``host:port`` of the coordinator; IPv6 as ``[address]:port``.
        cohort: the cohort file; relative paths start at the site's folder. By default that of the site's own store.
        device: where the trainer computes.
        threads: CPU threads of the trainer; None leaves it to the libraries.
        round_limit_s: a round of training that takes longer is given up.
        poll_s: how often the SuperNode asks the coordinator whether there is something to do.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    coordinator: Annotated[str, Field(pattern=ADDRESS_PATTERN)]
    cohort: Path = STORE_COHORT
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    round_limit_s: Annotated[float, Field(gt=0.0)] = 4 * 3600.0
    poll_s: Annotated[float, Field(ge=0.1, le=60.0)] = 3.0


class ApprovedBundles(BaseModel):
    """SHA-256 of the app bundles this site takes messages for, beside that of its own version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...] = ()


@dataclass(frozen=True)
class SiteFolder:
    """The layout below ``path``."""

    path: Path

    @classmethod
    def create(
        cls, path: Path, settings: SiteSettings, authority_certificate: Path, policy: SitePolicy | None = None
    ) -> "SiteFolder":
        """Set up a new site: its key, its secrets, its policy, its journal and the certificate it trusts.

        Raises:
            UsageError: there is a site in ``path`` already.
            BadInputError: ``authority_certificate`` cannot be read.
            CannotDoHereError: the folder cannot be made private.
        """
        folder = cls(path.absolute())
        if folder.settings_file.exists():
            raise UsageError("site.exists", "This folder holds a site already.", "Choose another folder, or run it.")
        try:
            trusted = authority_certificate.read_bytes()
        except OSError as error:
            raise BadInputError(
                "site.certificate", f"{authority_certificate.name} cannot be read.", "Give the coordinator's ca.crt."
            ) from error
        for place in (folder.path, folder.run, folder.logs, folder.flower_home):
            private_folder(place)
        keep_secret(folder.pseudonym_secret)
        write_private(folder.authority_certificate, trusted)
        make_site_key(folder.private_key, folder.public_key)
        keep_secret(folder.superexec_secret)
        write_text(folder.path / "approved.json", ApprovedBundles().model_dump_json() + "\n", private=True)
        write_policy(folder.policy_file, policy or SitePolicy())
        write_text(folder.policy_seen, sha256_of(folder.policy_file) + "\n", private=True)
        folder.journal.append(
            Enrolled(key_sha256=sha256_of(folder.public_key), authority_sha256=sha256_of(folder.authority_certificate))
        )
        folder.keep_settings(settings)
        return folder

    @classmethod
    def open(cls, path: Path) -> "SiteFolder":
        """Open an existing site's folder; raises BadInputError if there is none."""
        folder = cls(path.absolute())
        folder.settings()
        return folder

    @property
    def settings_file(self) -> Path:
        """File of the settings."""
        return self.path / "site.json"

    @property
    def private_key(self) -> Path:
        """The site's key; never leaves this folder."""
        return self.path / "key"

    @property
    def public_key(self) -> Path:
        """What the coordinator admits."""
        return self.path / "key.pub"

    @property
    def authority_certificate(self) -> Path:
        """Certificate of the coordinator's authority."""
        return self.path / "ca.crt"

    @property
    def invitation_file(self) -> Path:
        """The invitation that the site joined with; not there where it was set up without one."""
        return self.path / "invitation.json"

    @property
    def request_file(self) -> Path:
        """The request that the site sends to the coordinator to be admitted."""
        return self.path / "join-request.json"

    @property
    def superexec_secret(self) -> Path:
        """Secret that lets our executor, and no other user of this machine, take tasks."""
        return self.path / "superexec.secret"

    @property
    def policy_file(self) -> Path:
        """What this site allows; no server can change it."""
        return self.path / "policy.json"

    @property
    def policy_seen(self) -> Path:
        """SHA-256 of the policy that the journal knows of; see ``site.policy_watch``."""
        return self.path / "policy.seen"

    @property
    def pseudonym_secret(self) -> Path:
        """Secret that turns case ids into what the server sees."""
        return self.path / "pseudonyms.secret"

    @property
    def journal(self) -> Journal:
        """What was asked, refused and sent."""
        return Journal(self.path / "journal")

    @property
    def run(self) -> Path:
        """What lives only while the site runs: progress, the trainer's address, task tokens."""
        return self.path / "run"

    @property
    def training(self) -> Path:
        """What training goes on from after a restart: validation losses, what rounding held back."""
        return self.path / "training"

    @property
    def trainer_address(self) -> Path:
        """Where the trainer listens, and with which key."""
        return self.run / "trainer.json"

    @property
    def trainer_trouble(self) -> Path:
        """Why the trainer ended, in its own words; see ``site.trainer_keeper``."""
        return self.run / "trainer-trouble.json"

    @property
    def progress(self) -> Path:
        """What the trainer is doing."""
        return self.run / "progress.json"

    @property
    def logs(self) -> Path:
        """Folder of the children's output; stays at the site."""
        return self.path / "logs"

    @property
    def flower_home(self) -> Path:
        """FLWR_HOME of the site's children."""
        return self.path / "flower"

    @property
    def store(self) -> Path:
        """Copies of the site's cases, with patients and consents; see ``site.cohort_store``."""
        return self.path / STORE_COHORT.parent

    @property
    def store_cohort(self) -> Path:
        """The cohort file that the store writes: cases with consent, no more."""
        return self.path / STORE_COHORT

    @property
    def control_file(self) -> Path:
        """What people at the site want it to do; see ``site.control``."""
        return self.path / "control.json"

    @property
    def process_lock(self) -> Path:
        """Lock that is held as long as a process looks after the site."""
        return self.path / "site.lock"

    @property
    def status_file(self) -> Path:
        """How the site's processes stand, also after they have ended; see ``site.state``."""
        return self.path / "status.json"

    @property
    def notice(self) -> Path:
        """What the coordinator said last beside orders."""
        return self.run / "notice.json"

    @property
    def releases(self) -> Path:
        """Releases that the coordinator sent; not there before the first one."""
        return self.path / "releases"

    @property
    def round_records(self) -> Path:
        """How the site's rounds went, for its own people; see ``site.round_records``."""
        return self.path / "rounds.jsonl"

    @property
    def cohort(self) -> Path:
        """The cohort file."""
        return self.path / self.settings().cohort

    def settings(self) -> SiteSettings:
        """Return the settings; raises BadInputError where they are missing or damaged."""
        try:
            return SiteSettings.model_validate_json(self.settings_file.read_bytes())
        except (OSError, ValidationError) as error:
            raise BadInputError(
                "site.folder",
                f"The folder {self.path.name} holds no site.",
                "Join with an invitation, or choose the folder of a site.",
            ) from error

    def keep_settings(self, settings: SiteSettings) -> None:
        """Write the settings."""
        write_text(self.settings_file, settings.model_dump_json(indent=2) + "\n", private=True)

    def invitation(self) -> Invitation | None:
        """Return the invitation that the site joined with, however old; None where it was set up without one.

        Raises:
            BadInputError: ``invitation.*``: the kept file is damaged.
        """
        return open_invitation(self.invitation_file) if self.invitation_file.exists() else None

    def policy(self) -> SitePolicy:
        """Return the site's policy; the default one where a folder was made before there were policies.

        Raises:
            BadInputError: ``policy.unreadable``, ``policy.invalid``.
        """
        return read_policy(self.policy_file) if self.policy_file.exists() else SitePolicy()

    def approves(self, digest: str) -> bool:
        """Return whether messages of the bundle with this SHA-256 are answered: this version's own, or a listed one."""
        if digest == bundle_digest(thin_bundle()):
            return True
        try:
            listed = ApprovedBundles.model_validate_json((self.path / "approved.json").read_bytes())
        except (OSError, ValidationError):
            return False
        return digest in listed.sha256

    def forget_trainer(self) -> None:
        """Remove the address of a trainer that has ended, and its socket if it was killed and left it."""
        try:
            address = Path(json.loads(self.trainer_address.read_bytes())["address"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return
        if address.parent.name.startswith(SOCKET_PREFIX):
            # the socket and its empty folder: whatever a damaged file names, nothing else is deleted
            with suppress(OSError):
                if address.is_socket():
                    address.unlink()
                address.parent.rmdir()
        self.trainer_address.unlink(missing_ok=True)

    def empty_run(self) -> None:
        """Forget what an earlier start left in ``run``."""
        self.forget_trainer()
        shutil.rmtree(self.run, ignore_errors=True)
        private_folder(self.run)
