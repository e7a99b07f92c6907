"""A group's whole state on disk after every round, and back.

``<folder>/<group>/round-000003/`` holds model, rule state, per-site models (also of sites that were away: so a group
takes as many times a model's room as it has members) and ``state.json`` with the SHA-256 of them
all; ``current.json`` points to the round that counts and is replaced last, so that a server that dies at any moment
goes on with the next round. The round before is kept too: where the newest was damaged on the disk, it is trained
again. ``history/000003.json`` holds what sites answered in that round; rounds after the current one are not read.
"""

import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from safetensors import SafetensorError

from FedSegCore.common.errors import BadInputError
from FedSegCore.common.files import remove_unfinished, sha256_of, sync_folder, whole_folder, write_json, write_text
from FedSegCore.federation.aggregation.rule import Arrays
from FedSegCore.federation.array_files import LazyArrays, disk_trouble, load_arrays, save_arrays
from FedSegCore.federation.messages import SiteIntroduction
from FedSegCore.learning.results import CaseScore
from FedSegCore.volumes.usual import CohortUsual

DONE = "done"
"""What ``GroupState.ended`` says of a group that did all its rounds."""

_COMMON = "common.safetensors"

_KEPT_ROUNDS = 2

_log = logging.getLogger(__name__)


class SiteRound(BaseModel):
    """What one site did in one round.

    Attributes:
        round_number: 1-based.
        site: the site.
        code: empty if its answer was used, else the stable code of why not.
        loss: mean training loss.
        examples: n_k, as it weighs.
        steps: s_k, as it weighs.
        bytes_received: size of its answer's tensors.
        payload_bytes: size of the whole answer as it came.
        payload_sha256: its hash, the one in the site's journal.
        answer_seconds: from asking to the answer, at the server.
        seconds: the site's own times.
        scores: the received model's scores on the site's validation cases.
        annotated: contract values that the site's training cases annotate.
        lesion_counts: how many of its training images have a lesion of which size, where FedGS asked for it.
        usual: what is usual in its training cohort, where it told that.
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
    lesion_counts: tuple[int, ...] = ()
    usual: CohortUsual | None = None


class Member(BaseModel):
    """A site of a group, as the group remembers it.

    Attributes:
        introduction: who it is.
        rounds_answered: how many of its answers were used.
        node_id: the Flower node it was last asked as; another one is another admission.
        recent: hashes of the tensors it answered with, newest last.
        lesion_counts: the lesion sizes it told, empty until it has.
        usual: what is usual in its training cohort; None until it has answered when asked.
        annotated: contract values that its training cases have annotated in any round.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    introduction: SiteIntroduction
    rounds_answered: Annotated[int, Field(ge=0)] = 0
    node_id: int | None = None
    recent: tuple[str, ...] = ()
    lesion_counts: tuple[int, ...] = ()
    usual: CohortUsual | None = None
    annotated: tuple[int, ...] = ()


@dataclass(frozen=True)
class GroupState:
    """A group between two rounds.

    Attributes:
        group: its name.
        round_number: rounds closed so far.
        model: the group model.
        rule_state: what the rule remembers.
        site_models: site → its own model for the next round, read when asked.
        members: site → who it is and how often it answered.
        answered: sites whose answers made this model.
        ended: empty while the group goes on, else why it ended (``"done"`` or a code).
        common_model: what sites without a model of their own are sent; empty where that is ``model``.
    """

    group: str
    round_number: int
    model: Arrays
    rule_state: Arrays = field(default_factory=dict)
    site_models: Mapping[str, Arrays] = field(default_factory=dict)
    members: Mapping[str, Member] = field(default_factory=dict)
    answered: tuple[str, ...] = ()
    ended: str = ""
    common_model: Arrays = field(default_factory=dict)

    def model_for(self, site: str) -> Arrays:
        """Return the model that ``site`` is sent next."""
        own = self.site_models.get(site)
        return (self.common_model or self.model) if own is None else own


class _StateFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    group: str
    round_number: int
    site_files: dict[str, str]
    members: dict[str, Member]
    answered: tuple[str, ...]
    ended: str
    sha256: dict[str, str] = {}


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

    def remove_unfinished(self) -> None:
        """Delete what a killed server left half done; nobody else may be using the store."""
        remove_unfinished(self._folder)
        for group in self._folder.iterdir():
            remove_unfinished(group)
            remove_unfinished(group / "history")
            shutil.rmtree(group / "working", ignore_errors=True)

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
        try:
            return self._save(state, site_model, history)
        except OSError as error:
            raise disk_trouble() from error

    def _save(
        self, state: GroupState, site_model: Callable[[str], Arrays] | None, history: Sequence[SiteRound]
    ) -> GroupState:
        group = self._folder / state.group
        (group / "history").mkdir(parents=True, exist_ok=True)
        number = f"{state.round_number:06d}"
        write_text(group / "history" / f"{number}.json", _HISTORY.dump_json(tuple(history)).decode())
        target = group / f"round-{number}"
        # left over if a server died between writing the folder and pointing to it
        shutil.rmtree(target, ignore_errors=True)
        with whole_folder(target) as folder:
            self._write(folder, state, site_model)
        write_json(group / "current.json", {"folder": target.name, "sha256": sha256_of(target / "state.json")})
        sync_folder(group)
        self._forget(group, target.name)
        return self._read(target)

    def load(self, group: str, told: Callable[[str], None] | None = None) -> GroupState | None:
        """Return the state of the last closed round, or None if there is none.

        Args:
            group: its name.
            told: told in words that the last round is damaged and the one before is returned.

        Raises:
            BadInputError: ``federation.state-unreadable``: no round that is kept can be read.
        """
        folder = self._folder / group
        if not (folder / "current.json").exists():
            return None
        reasons: list[Exception] = []
        for number, candidate in enumerate(self._candidates(folder)):
            try:
                state = self._read_whole(candidate, folder)
            except (OSError, ValueError, KeyError, SafetensorError) as error:
                reasons.append(error)
                continue
            if number and told is not None:
                told(f"The state of group {group} is damaged after round {state.round_number}; it goes on from there.")
            return state
        raise BadInputError(
            "federation.state-unreadable",
            f"The saved state of group {group} cannot be read.",
            "Restore the run's folder from a backup, or start a new run.",
        ) from (reasons[0] if reasons else None)

    @staticmethod
    def _candidates(group: Path) -> Iterator[Path]:
        """Yield the round that counts, then those kept from before it; where the pointer is damaged, all of them."""
        rounds = sorted((path for path in group.glob("round-*") if path.is_dir()), reverse=True)
        pointed = str(_pointer(group).get("folder", ""))
        if pointed:
            yield group / pointed
        yield from (path for path in rounds if not pointed or path.name < pointed)

    @classmethod
    def _read_whole(cls, candidate: Path, group: Path) -> GroupState:
        """Read a round's folder after comparing every file with its hash; ValueError where one differs."""
        content = (candidate / "state.json").read_bytes()
        pointer = _pointer(group)
        expected = {"state.json": str(pointer["sha256"])} if pointer.get("folder") == candidate.name else {}
        expected |= _StateFile.model_validate_json(content).sha256
        for name, digest in expected.items():
            if sha256_of(candidate / name) != digest:
                raise ValueError(f"{name} is damaged")
        return cls._read(candidate)

    def history(self, group: str, through: int) -> tuple[SiteRound, ...]:
        """Return what sites did in the rounds up to ``through`` (``GroupState.round_number``), in order."""
        paths = sorted((self._folder / group / "history").glob("*.json"))
        rows: list[SiteRound] = []
        for path in paths:
            if int(path.stem) > through:  # of a round that was never closed, or was damaged
                continue
            try:
                rows.extend(_HISTORY.validate_json(path.read_bytes()))
            except ValidationError:
                # numbers for people: a run does not end over them
                _log.warning("what sites did in round %s of group %s is damaged and left out", path.stem, group)
        return tuple(rows)

    @staticmethod
    def _read(folder: Path) -> GroupState:
        saved = _StateFile.model_validate_json((folder / "state.json").read_text(encoding="utf-8"))
        common = folder / _COMMON
        return GroupState(
            group=saved.group,
            round_number=saved.round_number,
            model=load_arrays(folder / "model.safetensors"),
            rule_state=load_arrays(folder / "rule.safetensors"),
            common_model=LazyArrays(common) if common.exists() else {},
            site_models={site: LazyArrays(folder / file) for site, file in saved.site_files.items()},
            members=saved.members,
            answered=saved.answered,
            ended=saved.ended,
        )

    @staticmethod
    def _write(folder: Path, state: GroupState, site_model: Callable[[str], Arrays] | None) -> None:
        save_arrays(folder / "model.safetensors", state.model)
        save_arrays(folder / "rule.safetensors", state.rule_state)
        if state.common_model:
            save_arrays(folder / _COMMON, state.common_model)
        files = _write_site_models(folder, state.members, site_model) if site_model is not None else {}
        hashes = {path.name: sha256_of(path) for path in sorted(folder.glob("*.safetensors"))}
        saved = _StateFile(
            sha256=hashes,
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


def _pointer(group: Path) -> dict[str, str]:
    """Return what ``current.json`` holds; nothing where it is damaged."""
    try:
        found = json.loads((group / "current.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    told = found if isinstance(found, dict) else {}
    return {key: value for key, value in told.items() if isinstance(value, str)}


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
