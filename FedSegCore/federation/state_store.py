"""A group's whole state on disk after every round, and back.

``<folder>/<group>/round-000003/`` holds model, rule state, per-site models and ``state.json``; ``current.json`` points
to the round that counts and is replaced last, so that a server that dies at any moment goes on with the next round.
``history/000003.json`` holds what sites answered in that round; rounds after the current one are not read.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from safetensors import SafetensorError

from FedSegCore.common.errors import BadInputError
from FedSegCore.common.files import whole_folder, write_json, write_text
from FedSegCore.federation.aggregation.rule import Arrays
from FedSegCore.federation.array_files import LazyArrays, load_arrays, save_arrays
from FedSegCore.federation.messages import SiteIntroduction
from FedSegCore.learning.results import CaseScore

DONE = "done"
"""What ``GroupState.ended`` says of a group that did all its rounds."""

_KEPT_ROUNDS = 2


class SiteRound(BaseModel):
    """What one site did in one round.

    Attributes:
        round_number: 1-based.
        site: the site.
        code: empty if its answer was used, else the stable code of why not.
        loss: mean training loss.
        examples: n_k.
        steps: s_k.
        bytes_received: size of its answer's tensors.
        payload_bytes: size of the whole answer as it came.
        payload_sha256: its hash, the one in the site's journal.
        answer_seconds: from asking to the answer, at the server.
        seconds: the site's own times.
        scores: the received model's scores on the site's validation cases.
        annotated: contract values that the site's training cases annotate.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    round_number: int
    site: str
    code: str = ""
    loss: float | None = None
    examples: int = 0
    steps: int = 0
    bytes_received: int = 0
    payload_bytes: int = 0
    payload_sha256: str = ""
    answer_seconds: float = 0.0
    seconds: dict[str, float] = {}
    scores: tuple[CaseScore, ...] = ()
    annotated: tuple[int, ...] = ()


class Member(BaseModel):
    """A site of a group, as the group remembers it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    introduction: SiteIntroduction
    rounds_answered: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True)
class GroupState:
    """A group between two rounds.

    Attributes:
        group: its name.
        round_number: rounds closed so far.
        model: the group model.
        rule_state: what the rule remembers.
        site_models: site → its own model for the next round, read when asked; others get ``model``.
        members: site → who it is and how often it answered.
        answered: sites whose answers made this model.
        ended: empty while the group goes on, else why it ended (``"done"`` or a code).
    """

    group: str
    round_number: int
    model: Arrays
    rule_state: Arrays = field(default_factory=dict)
    site_models: Mapping[str, Arrays] = field(default_factory=dict)
    members: Mapping[str, Member] = field(default_factory=dict)
    answered: tuple[str, ...] = ()
    ended: str = ""


class _StateFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    group: str
    round_number: int
    site_files: dict[str, str]
    members: dict[str, Member]
    answered: tuple[str, ...]
    ended: str


_HISTORY = TypeAdapter(tuple[SiteRound, ...])


class GroupStateStore:
    """The states of all groups of a run, below one folder.

    Args:
        folder: made if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def groups(self) -> tuple[str, ...]:
        """Return the groups that have a saved state, by name."""
        return tuple(sorted(path.parent.name for path in self._folder.glob("*/current.json")))

    def working_folder(self, group: str) -> Path:
        """Return the folder for what a rule keeps during a round; its content counts for nothing between rounds."""
        return self._folder / group / "working"

    def save(
        self, state: GroupState, site_model: Callable[[str], Arrays] | None, history: Sequence[SiteRound]
    ) -> GroupState:
        """Write the state of a closed round and return it as a restarted server would read it.

        Args:
            state: the state; its ``site_models`` are not written, see ``site_model``.
            site_model: makes the own model of a member (KeyError: it has none), one at a time; None: nobody has one.
            history: what the sites did in round ``state.round_number``.
        """
        group = self._folder / state.group
        (group / "history").mkdir(parents=True, exist_ok=True)
        number = f"{state.round_number:06d}"
        write_text(group / "history" / f"{number}.json", _HISTORY.dump_json(tuple(history)).decode())
        target = group / f"round-{number}"
        # left over if a server died between writing the folder and pointing to it
        shutil.rmtree(target, ignore_errors=True)
        with whole_folder(target) as folder:
            self._write(folder, state, site_model)
        write_json(group / "current.json", {"folder": target.name})
        self._forget(group, target.name)
        return self._read(target)

    def load(self, group: str) -> GroupState | None:
        """Return the state of the last closed round, or None if there is none.

        Raises:
            BadInputError: ``federation.state-unreadable``.
        """
        pointer = self._folder / group / "current.json"
        if not pointer.exists():
            return None
        try:
            return self._read(self._folder / group / str(json.loads(pointer.read_text(encoding="utf-8"))["folder"]))
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise BadInputError(
                "federation.state-unreadable",
                f"The saved state of group {group} cannot be read.",
                "Restore the run's folder from a backup, or start a new run.",
            ) from error

    def history(self, group: str) -> tuple[SiteRound, ...]:
        """Return what sites did in all closed rounds, in order."""
        state = self.load(group)
        paths = sorted((self._folder / group / "history").glob("*.json"))
        rows: list[SiteRound] = []
        for path in paths:
            if state is not None and int(path.stem) <= state.round_number:
                rows.extend(_HISTORY.validate_json(path.read_bytes()))
        return tuple(rows)

    @staticmethod
    def _read(folder: Path) -> GroupState:
        saved = _StateFile.model_validate_json((folder / "state.json").read_text(encoding="utf-8"))
        return GroupState(
            group=saved.group,
            round_number=saved.round_number,
            model=load_arrays(folder / "model.safetensors"),
            rule_state=load_arrays(folder / "rule.safetensors"),
            site_models={site: LazyArrays(folder / file) for site, file in saved.site_files.items()},
            members=saved.members,
            answered=saved.answered,
            ended=saved.ended,
        )

    @staticmethod
    def _write(folder: Path, state: GroupState, site_model: Callable[[str], Arrays] | None) -> None:
        save_arrays(folder / "model.safetensors", state.model)
        save_arrays(folder / "rule.safetensors", state.rule_state)
        files = _write_site_models(folder, state.members, site_model) if site_model is not None else {}
        saved = _StateFile(
            group=state.group,
            round_number=state.round_number,
            site_files=files,
            members=dict(state.members),
            answered=state.answered,
            ended=state.ended,
        )
        write_text(folder / "state.json", saved.model_dump_json(indent=2))

    @staticmethod
    def _forget(group: Path, current: str) -> None:
        rounds = sorted(path for path in group.glob("round-*") if path.name <= current)
        for path in rounds[:-_KEPT_ROUNDS]:
            shutil.rmtree(path, ignore_errors=True)


def _write_site_models(folder: Path, sites: Iterable[str], site_model: Callable[[str], Arrays]) -> dict[str, str]:
    files: dict[str, str] = {}
    for number, site in enumerate(sorted(sites)):
        try:
            arrays = site_model(site)
        except KeyError:
            continue
        files[site] = f"site-{number:06d}.safetensors"
        save_arrays(folder / files[site], arrays)
    return files
