"""A folder of images with their segmentations becomes cases of the store, one after another.

An image ``NAME.nrrd`` (or another ending that is read) belongs to the segmentation ``NAME.seg.nrrd``, or to a file of
the same name with ``_seg``, ``-seg``, ``_label``, ``-label`` or ``_labels`` before its ending. ``NAME`` is taken for
the site's id of the patient, which stays in the store's index.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from FedSegCore.common.errors import BadInputError
from FedSegCore.common.progress import Progress
from FedSegCore.federation.site.case_intake import CaseOffer
from FedSegCore.federation.site.cohort_index import Consent, StoredCase
from FedSegCore.federation.site.cohort_store import CohortStore

_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
_LABELS = re.compile(r"(?P<name>.+?)(\.seg|[_-]seg|[_-]labels?)", re.IGNORECASE)


@dataclass(frozen=True)
class ImageLeftOut:
    """An image that did not become a case: its name, a stable code, and why in words."""

    name: str
    code: str
    words: str


@dataclass(frozen=True)
class FolderTaken:
    """What came of a folder.

    Attributes:
        added: its cases, in the order of their names.
        left_out: the others.
    """

    added: tuple[StoredCase, ...]
    left_out: tuple[ImageLeftOut, ...]


def pairs_in(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Return name → (image, segmentation) of a folder's files, by name.

    Raises:
        BadInputError: ``cohort.folder``: no image has a segmentation of its name.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    images: dict[str, Path] = {}
    labels: dict[str, Path] = {}
    for path in files:
        ending = next((ending for ending in _ENDINGS if path.name.lower().endswith(ending)), None)
        if ending is None:
            continue
        stem = path.name[: -len(ending)]
        found = _LABELS.fullmatch(stem)
        (images if found is None else labels).setdefault(stem if found is None else found["name"], path)
    pairs = {name: (image, labels[name]) for name, image in images.items() if name in labels}
    if not pairs:
        raise BadInputError(
            "cohort.folder",
            f"In {folder.name} no image has a segmentation beside it.",
            "Save each segmentation under its image's name, as scan7.nrrd and scan7.seg.nrrd.",
        )
    return pairs


def add_folder(
    store: CohortStore, folder: Path, like: CaseOffer, consent: Consent | None, progress: Progress
) -> FolderTaken:
    """Check every image of a folder and copy those that nothing speaks against; each is a patient of its own.

    Args:
        store: the site's.
        folder: the images and their segmentations.
        like: modality and naming of all of them; its files and patient do not count.
        consent: to training on all of them; without it they wait.
        progress: told of every image; cancels between two of them, and what was added before stays.

    Raises:
        BadInputError: ``cohort.folder``.
        UsageError: ``store.own-cohort``.
    """
    pairs = pairs_in(folder)
    added: list[StoredCase] = []
    left_out: list[ImageLeftOut] = []
    for number, (name, (image, labels)) in enumerate(pairs.items()):
        progress.update(number / len(pairs), f"case {number + 1} of {len(pairs)}")
        offer = replace(like, image=image, labels=labels, patient=name, title=image.name)
        try:
            added.append(store.add(offer, consent))
        except BadInputError as error:
            left_out.append(ImageLeftOut(name, error.code, f"{error.what} {error.remedy}"))
    progress.update(1.0, "done")
    return FolderTaken(tuple(added), tuple(left_out))
