"""Whether the coordinator knows this site's key: asked in a short process, told in words."""

import json
import re
import subprocess
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from FedSegCore.common import quick_start
from FedSegCore.common.errors import CannotDoHereError
from FedSegCore.common.files import write_text
from FedSegCore.federation.log_tail import LARGEST_LOG, cut_log
from FedSegCore.federation.process_group import child_environment
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.keys import read_public_key, short_fingerprint

_LIMIT_S = 60.0
_TOLD_ID = re.compile(r"SuperNode ID: (\d{1,20})")


class Admission(StrEnum):
    """What a coordinator says of a site's key.

    UNKNOWN also covers a key that is connected at this moment from somewhere else: Flower answers both alike.
    EXPELLED: a key it knew before and does not know now. SIGNATURE: it does not take the signature's time.
    """

    ADMITTED = "admitted"
    UNKNOWN = "unknown"
    EXPELLED = "expelled"
    SIGNATURE = "signature"
    OTHER = "other"


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        admission: see ``Admission``.
        status: HTTP status where it is not the expected one.
    """

    admission: Admission
    status: int = 200


def admission_words(folder: SiteFolder) -> str:
    """Ask the coordinator whether it knows the site and return that in words.

    Raises:
        CannotDoHereError: ``check.not-admitted``, ``check.expelled``, ``check.clock``, ``check.not-a-coordinator``,
            ``check.no-answer``.
        BadInputError: the site's key cannot be read.
    """
    fingerprint = short_fingerprint(read_public_key(folder.public_key))
    answer = _asked(folder)
    match answer.admission:
        case Admission.ADMITTED:
            return f"The coordinator knows this site's key ({fingerprint})."
        case Admission.UNKNOWN:
            raise CannotDoHereError(
                "check.not-admitted",
                f"The coordinator does not know this site's key ({fingerprint}), or is connected to it elsewhere.",
                "Send the request file, read this fingerprint out over the telephone, and wait to be admitted.",
            )
        case Admission.EXPELLED:
            raise CannotDoHereError(
                "check.expelled",
                f"The coordinator knew this site's key ({fingerprint}) and does not know it any more.",
                "Ask the coordinator; to come back, join again with a new invitation: a key is used up for ever.",
            )
        case Admission.SIGNATURE:
            raise CannotDoHereError(
                "check.clock",
                "The coordinator does not take this site's signature, most likely for its time.",
                "Let this computer set its clock from the network (time synchronisation); the coordinator likewise.",
            )
        case Admission.OTHER:
            raise CannotDoHereError(
                "check.not-a-coordinator",
                f"What answers does not speak as a coordinator does (HTTP {answer.status}).",
                "Check host and port; behind a reverse proxy, everything below /v1/fleet/ must be passed on.",
            )


def known_node_id(folder: SiteFolder) -> int | None:
    """Return the id Flower gave this site when it was last connected or asked; None if it never was."""
    log = _connection_log(folder)
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 2 * LARGEST_LOG))
            told = _TOLD_ID.findall(file.read().decode("utf-8", errors="replace"))
    except OSError:
        told = []
    try:
        return int(told[-1] if told else _node_id_file(folder).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def keep_node_id(folder: SiteFolder, node_id: int) -> None:
    """Keep the id for when no log tells it any more."""
    file, told = _node_id_file(folder), f"{node_id}\n"
    if not file.exists() or file.read_text(encoding="ascii") != told:
        write_text(file, told, private=True)


def forget_node_id(folder: SiteFolder) -> None:
    """Forget the id of a former key."""
    _node_id_file(folder).unlink(missing_ok=True)
    cut_log(_connection_log(folder), 0)


def _connection_log(folder: SiteFolder) -> Path:
    return folder.logs / "supernode.log"


def _node_id_file(folder: SiteFolder) -> Path:
    return folder.path / "node-id"


def _asked(folder: SiteFolder) -> Answer:
    command = [*quick_start.command("FedSegCore.federation.site.ask_admission"), "--folder", str(folder.path)]
    environment = child_environment(folder.flower_home, 1)
    try:
        done = subprocess.run(
            command,
            env=environment,
            cwd=folder.path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=True,
        )
        told = json.loads(done.stdout.splitlines()[-1])
        return Answer(Admission(told["admission"]), int(told["status"]))
    except (subprocess.SubprocessError, OSError, ValueError, LookupError) as error:
        said = getattr(error, "stderr", None) or ""
        reason = said.strip().splitlines()[-1][:200] if isinstance(said, str) and said.strip() else type(error).__name__
        raise CannotDoHereError(
            "check.no-answer",
            f"The coordinator gave no answer to Flower's own client ({reason}).",
            "Try again in a minute; if it stays so, show this message to whoever runs the coordinator.",
        ) from error
