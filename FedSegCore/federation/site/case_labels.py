"""A site's own segments or numbers → the federation's labels, by SNOMED-CT code where the file has codes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from FedSegCore.common.errors import BadInputError
from FedSegCore.federation.site.case_checks import CaseFinding
from FedSegCore.volumes.labels import NOT_ANNOTATED, Label, LabelContract, SiteLabelMapping
from FedSegCore.volumes.segmentation_file import read_segments
from FedSegCore.volumes.volume import Volume

Naming = Mapping[str, tuple[str, ...] | str]
"""Contract label → the site's own segment names or numbers for it (several are merged), or ``"not annotated"``."""

OfferedNaming = Mapping[str, tuple[str, ...] | str | None]
"""The same where a case is offered; None: what was said before holds no more, it is found by its code or name."""


@dataclass(frozen=True)
class Matched:
    """A label map in the contract's numbers.

    Attributes:
        labels: (1, k, j, i) uint8 contract values, on the grid of the site's label map.
        annotated: contract values that the case annotates, ascending.
        findings: what did not match.
    """

    labels: Volume
    annotated: tuple[int, ...]
    findings: tuple[CaseFinding, ...]


def segments_of(path: Path) -> list[dict[str, Any]] | None:
    """Return the segments that an NRRD file declares; None for a plain label map."""
    if not path.name.lower().endswith(".nrrd"):
        return None
    try:
        return read_segments(path)
    except BadInputError:
        return None


def match_labels(
    labels: Volume,
    segments: Sequence[Mapping[str, Any]] | None,
    contract: LabelContract,
    naming: Naming,
    said: Collection[str] = (),
) -> Matched:
    """Return the label map in contract values.

    Segments are found by ``naming``, else by code (type, and laterality where the contract has one), else by the
    contract's own name. Numbers of a plain label map are found by ``naming``, or are the contract's if it has none.

    Args:
        labels: (1, k, j, i), the site's numbers.
        segments: as ``read_segments`` gives them; None for a plain label map.
        contract: the federation's labels.
        naming: what the site said of its names or numbers.
        said: the contract labels of which that was said of this very case; of others it was said of earlier ones.
    """
    if segments is None:
        own = _by_number(contract, naming)
        strict = not _numbers_given(naming)
    else:
        own = {label.name: _by_segment(label, contract, segments, naming) for label in contract.labels}
        strict = False
    unmapped = tuple(name for name, values in own.items() if values is None)
    known = {name: NOT_ANNOTATED if values is None else values for name, values in own.items()}
    mapping = SiteLabelMapping(values=known)
    strangers = _strangers(labels, known)
    declared = _declared(contract, segments or (), naming, strangers)
    strangers -= {value for values in declared.values() for value in values}
    findings = [
        *_unmapped(unmapped),
        *_claimed_twice(known),
        *_outlined(declared, said),
        *_left_over(strangers, strict),
    ]
    array = mapping.apply(labels.array, contract)
    return Matched(labels.with_array(array), mapping.annotated(contract), tuple(findings))


def _numbers_given(naming: Naming) -> bool:
    return any(word.isdigit() for words in naming.values() if not isinstance(words, str) for word in words)


def _by_number(contract: LabelContract, naming: Naming) -> dict[str, tuple[int, ...] | str | None]:
    own: dict[str, tuple[int, ...] | str | None] = {}
    for label in contract.labels:
        words = naming.get(label.name)
        if isinstance(words, str):
            own[label.name] = NOT_ANNOTATED
        elif words is not None and all(word.isdigit() for word in words):
            own[label.name] = tuple(int(word) for word in words)
        else:
            own[label.name] = None if words is not None or _numbers_given(naming) else (label.value,)
    return own


def _by_segment(
    label: Label, contract: LabelContract, segments: Sequence[Mapping[str, Any]], naming: Naming
) -> tuple[int, ...] | str | None:
    words = naming.get(label.name)
    if isinstance(words, str):
        return NOT_ANNOTATED
    if words is not None:
        wanted = {word.casefold() for word in words}
        found = [part for part in segments if {str(part["name"]).casefold(), str(part["value"])} & wanted]
    else:
        found = [part for part in segments if _label_of_code(part, contract) == label.name]
        named = [part for part in segments if str(part["name"]).casefold() == label.name.casefold()]
        found = found or [part for part in named if _label_of_code(part, contract) is None]
    return tuple(sorted({int(part["value"]) for part in found})) or None


def _label_of_code(segment: Mapping[str, Any], contract: LabelContract) -> str | None:
    """Return the label with the segment's code; one of its side before one that has no side."""
    fields = [tuple(part.split("^")) for part in str(segment["terminology"]).split("~")]
    if len(fields) < 4 or len(fields[2]) < 2 or not fields[2][1]:
        return None
    kind, side = fields[2][:2], fields[3][1] if len(fields[3]) > 1 else ""
    alike = [label for label in contract.labels if (label.type.scheme, label.type.code) == kind]
    for wanted in (side, ""):
        for label in alike:
            if (label.modifier.code if label.modifier else "") == wanted:
                return label.name
    return None


def _unmapped(names: Sequence[str]) -> list[CaseFinding]:
    if not names:
        return []
    return [
        CaseFinding(
            "case.label-unmapped",
            f"Nothing in the segmentation is known to be: {', '.join(names)}.",
            "Say which segment or number it is, or declare it not annotated.",
        )
    ]


def _claimed_twice(known: Mapping[str, tuple[int, ...] | str]) -> list[CaseFinding]:
    claimed = [value for values in known.values() if not isinstance(values, str) for value in values]
    if len(claimed) == len(set(claimed)):
        return []
    return [
        CaseFinding(
            "case.label-twice",
            "One segment is said to be two structures of the federation.",
            "Correct the mapping of segments to structures.",
        )
    ]


def _strangers(labels: Volume, known: Mapping[str, tuple[int, ...] | str]) -> set[int]:
    """Return the numbers that became no structure: one declared not annotated may still have the contract's."""
    claimed = {value for values in known.values() if not isinstance(values, str) for value in values}
    return set(np.unique(labels.array).tolist()) - claimed - {0}


def _declared(
    contract: LabelContract, segments: Sequence[Mapping[str, Any]], naming: Naming, strangers: set[int]
) -> dict[str, tuple[int, ...]]:
    """Return the structures declared not annotated whose segment is there by its code or name, with its numbers."""
    found = {}
    for label in contract.labels:
        values = _by_segment(label, contract, segments, {}) if isinstance(naming.get(label.name), str) else None
        if values is not None and strangers.intersection(values):
            found[label.name] = tuple(value for value in values if isinstance(value, int))
    return found


def _outlined(declared: Collection[str], said: Collection[str]) -> list[CaseFinding]:
    """Return what is outlined all the same: a remark on what was meant so, a question of what may have changed."""
    meant = [name for name in declared if name in said]
    earlier = [name for name in declared if name not in said]
    found = []
    if meant:
        found.append(
            CaseFinding(
                "case.label-declared",
                f"Declared not annotated, but outlined here: {', '.join(meant)}.",
                "These outlines are left out of the site's copy.",
                refuses=False,
            )
        )
    if earlier:
        found.append(
            CaseFinding(
                "case.label-declared",
                f"Declared not annotated with an earlier case, but outlined here: {', '.join(earlier)}.",
                "Let it be found by its code or name again, or accept that these outlines are not used.",
            )
        )
    return found


def _left_over(strangers: set[int], strict: bool) -> list[CaseFinding]:
    if not strangers:
        return []
    shown = ", ".join(map(str, sorted(strangers)[:5]))
    words = f"The label map holds numbers that are no structure of the federation: {shown}."
    if strict:
        remedy = "Say which numbers are which structure; the contract's own numbers were assumed."
        return [CaseFinding("case.labels-unexpected", words, remedy)]
    return [CaseFinding("case.labels-left-out", words, "They are left out of the site's copy.", refuses=False)]
