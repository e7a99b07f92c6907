"""What people at a site want it to do: paused, only at night, on which device, gone. One small file that survives.

The running site's processes look at it: the trainer gives up a round that it is training, the others stop once the
refusal has left; see ``site.node``. Nothing that a server sends can write it.
"""

import shutil
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from FedSegCore.common.errors import BadInputError, CannotDoHereError, FedSegError, UsageError
from FedSegCore.common.files import write_text
from FedSegCore.common.validation import problems_of
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.journal_entries import ControlChanged
from FedSegCore.federation.site.schedule import Hours, next_change, within
from FedSegCore.federation.site.status import is_running

_MAX_FILE = 64 * 1024

_OURS = (
    *("store", "run", "training", "logs", "flower", "refused"),
    *("key", "key.pub", "ca.crt", "superexec.secret", "pseudonyms.secret", "invitation.json", "join-request.json"),
    *("policy.json", "policy.seen", "approved.json", "approved.lock", "augmentation.json", "node-id", "control.json"),
    *("status.json", "rounds.jsonl", "site.lock", "usual-told.json", "releases"),
)
_LEFT_BEHIND = (".writing-*", "token-*")
"""What a process that was killed leaves: half-written files, of whatever, and a task's token."""
_LAST = "site.json"


class Control(BaseModel):
    """What a site shall do.

    Attributes:
        paused: take part in nothing until resumed.
        leaving: leave the federation for good.
        hours: take part at these local hours only; None at any.
        cores_free: CPU cores the trainer leaves to others, where the settings do not say how many it takes.
        device: where the trainer computes; None as the settings say.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    paused: bool = False
    leaving: bool = False
    hours: Hours | None = None
    cores_free: Annotated[int, Field(ge=0, le=1024)] = 0
    device: Literal["auto", "cpu", "cuda"] | None = None


@dataclass(frozen=True)
class Halt:
    """Why a site takes no part now.

    Attributes:
        code: what the server is told: ``site.paused`` or ``site.left``.
        words: why, for people at the site.
        until: when it goes on by itself; None where somebody must say so.
    """

    code: str
    words: str
    until: datetime | None = None

    def error(self) -> FedSegError:
        """Return it as the error with which orders are refused."""
        remedy = "It left the federation." if self.code == "site.left" else "It is asked again once it is back."
        return CannotDoHereError(self.code, f"The site takes no part now: {self.words}.", remedy)


def read_control(folder: SiteFolder) -> Control:
    """Return what is wanted; all defaults where nobody has said anything.

    Raises:
        BadInputError: ``control.damaged``.
    """
    try:
        with folder.control_file.open("rb") as file:
            return Control.model_validate_json(file.read(_MAX_FILE))
    except FileNotFoundError:
        return Control()
    except (OSError, ValidationError) as error:
        raise BadInputError(
            "control.damaged",
            "The site's control.json cannot be read.",
            "Say again what it shall do: go on, or stay paused.",
        ) from error


def known_control(folder: SiteFolder) -> Control:
    """Return what is wanted, all defaults where the file is damaged; see ``halt_now`` for what that means."""
    try:
        return read_control(folder)
    except BadInputError:
        return Control()


def wanted_device(folder: SiteFolder) -> Literal["auto", "cpu", "cuda"]:
    """Return where the trainer shall compute: as it was said last, else as the site was set up."""
    return known_control(folder).device or folder.settings().device


def halt_now(folder: SiteFolder, now: datetime | None = None) -> Halt | None:
    """Return why the site takes no part at ``now`` (local time; the clock's by default), None if it does.

    A damaged file is a pause: whoever asked for one must not be ignored.
    """
    moment = now or datetime.now()
    try:
        control = read_control(folder)
    except BadInputError as error:
        return Halt("site.paused", f"{error.what} {error.remedy}".rstrip("."))
    if control.leaving:
        return Halt("site.left", "it has left the federation")
    if control.paused:
        return Halt("site.paused", "somebody here paused it")
    if control.hours is not None and not within(control.hours, moment):
        opens = next_change(control.hours, moment)
        return Halt("site.paused", f"it trains at {control.hours} only", opens)
    return None


def pause(folder: SiteFolder) -> None:
    """Take part in nothing until resumed: a round in training is given up within seconds, and the server told so."""
    control = known_control(folder)
    if not control.paused:
        _keep(folder, control.model_copy(update={"paused": True}))
        folder.journal.append(ControlChanged(what="paused"))


def resume(folder: SiteFolder) -> None:
    """Take part again, at the hours that are set.

    Raises:
        UsageError: ``site.has-left``.
    """
    control = known_control(folder)
    if control.leaving:
        raise has_left()
    _keep(folder, control.model_copy(update={"paused": False}))
    folder.journal.append(ControlChanged(what="resumed"))


def change(folder: SiteFolder, **wanted: Any) -> Control:
    """Change some of ``Control``'s entries and return it.

    Raises:
        UsageError: ``options.invalid``.
        BadInputError: ``control.damaged``: a pause that cannot be read stays one.
    """
    before = read_control(folder)
    try:
        control = Control.model_validate({**before.model_dump(), **wanted})
    except ValidationError as error:
        raise UsageError(
            "options.invalid",
            f"This is not possible: {problems_of(error)}.",
            "Hours are told as 19:00-07:00, cores as a number, the device as auto, cpu or cuda.",
        ) from error
    _keep(folder, control)
    return control


def leave(folder: SiteFolder) -> None:
    """Leave the federation: the running site refuses what it is asked with ``site.left``, stops, and stays away.

    The key stays until ``forget``; only the coordinator can take it off its list.
    """
    control = known_control(folder)
    if not control.leaving:
        _keep(folder, control.model_copy(update={"leaving": True}))
        folder.journal.append(ControlChanged(what="leaving"))


def forget(folder: SiteFolder) -> tuple[str, ...]:
    """Delete all that belongs to the federation: key, invitation, policy, copies of cases, logs; not the journal.

    Returns:
        Names of what is left in the folder: the journal, and what is none of ours.

    Raises:
        UsageError: ``site.running``.
        CannotDoHereError: ``site.not-forgotten``: something could not be deleted; call it again.
    """
    if is_running(folder):
        raise UsageError(
            "site.running", "The site is running.", "Stop it first, or leave the federation and wait a moment."
        )
    folder.journal.append(ControlChanged(what="forgotten"))
    try:
        # the settings last, so that what was interrupted can be done again
        left = [path for pattern in _LEFT_BEHIND for path in folder.path.glob(pattern)]
        for path in (*left, *(folder.path / name for name in (*_OURS, _LAST))):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise CannotDoHereError(
            "site.not-forgotten",
            "Something of the site could not be deleted.",
            "Close programs that use its folder, then do it again.",
        ) from error
    return tuple(sorted(path.name for path in folder.path.iterdir()))


def _keep(folder: SiteFolder, control: Control) -> None:
    write_text(folder.control_file, control.model_dump_json(indent=2) + "\n", private=True, lasting=True)


def has_left() -> UsageError:
    """Return the error of a site that left and is asked to take part."""
    return UsageError(
        "site.has-left",
        "The site has left the federation.",
        "To come back, join with a new invitation: in another folder, or after everything here is deleted.",
    )
