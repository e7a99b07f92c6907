"""What was found, kept with the segmentation itself: a scene that is saved and loaded again still says it."""

import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .SegmentationResult import RECORD, resultRows
from .SegmentTypes import Outcome

if TYPE_CHECKING:
    from slicer import vtkMRMLSegmentationNode

_KEPT = ("release", "modality", "device", "seconds", "notes", "intensity_unit", "segments", "please_check")
"""Of the worker's answer; not who signed the release, as a scene may come from anywhere."""


def recordOf(answer: dict[str, Any]) -> str:
    """Return what is kept of the worker's answer to ``segment``."""
    return json.dumps({name: answer[name] for name in _KEPT if name in answer}, sort_keys=True)


def outcomeOf(node: "vtkMRMLSegmentationNode", answer: dict[str, Any], place: str, isTrusted: bool = False) -> Outcome:
    """Return the outcome that the worker's answer tells, with the names and colors of the segments in the scene."""
    return Outcome(
        node,
        tuple(resultRows(node, answer["segments"], answer["please_check"])),
        answer["release"],
        answer["modality"],
        answer["device"],
        answer["seconds"],
        tuple(answer["notes"]),
        answer["intensity_unit"] or "",
        tuple(doubt["reason"] for doubt in answer["please_check"] if not doubt["label"]),
        place,
        isTrusted,
    )


def recorded(node: "vtkMRMLSegmentationNode", place: str) -> Outcome | None:
    """Return what a result says of itself, as in a scene that was loaded; None where it says nothing that is whole."""
    text = node.GetAttribute(RECORD)
    if not text:
        return None
    try:
        outcome = replace(outcomeOf(node, json.loads(text), place), isLoaded=True)
        _check(outcome)
    except (ValueError, KeyError, TypeError, AttributeError):
        logging.warning("FedSegSlicer: what a result says of itself cannot be read")
        return None
    return outcome


def _check(outcome: Outcome) -> None:
    """Raise where something is of another type than the worker's: a scene's file can be anything."""
    texts = (outcome.release, outcome.modality, outcome.device, outcome.intensityUnit, *outcome.notes, *outcome.checks)
    numbers: list[object] = [outcome.seconds]
    for row in outcome.rows:
        texts += (row.name, *row.checks)
        measures = row.volumeMl, row.meanIntensity, row.areaMm2, row.voxels
        numbers += [measure for measure in measures if measure is not None]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("no text")
    if not all(isinstance(number, int | float) for number in numbers):
        raise TypeError("no number")
