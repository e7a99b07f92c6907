"""One volume in, one segmentation on exactly its grid out."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from scipy import ndimage

from FedSegCore.common.errors import BadInputError
from FedSegCore.common.progress import Progress
from FedSegCore.inference.certainty import Certainty, CertaintyCounter
from FedSegCore.inference.devices import card_note, choose_device
from FedSegCore.inference.predictor import Predictor, make_predictor
from FedSegCore.inference.restoring import most_probable
from FedSegCore.inference.single_pieces import LeftOut, keep_single_pieces
from FedSegCore.inference.weights import load_weights
from FedSegCore.models.release import Release
from FedSegCore.networks.layout import lay_out
from FedSegCore.networks.registry import build_network
from FedSegCore.volumes.labels import LabelContract
from FedSegCore.volumes.preparation import Prepared, prepare, restore_labels
from FedSegCore.volumes.usual import image_features, looks_unlike
from FedSegCore.volumes.volume import Volume

SCORES_BYTES = 2 * 2**30
"""Most memory that the probabilities of a whole prepared image may take (float16)."""


@dataclass(frozen=True)
class Segmentation:
    """A segmented volume.

    Attributes:
        labels: uint8 (1, k, j, i), contract values, on exactly the input's grid.
        release: what segmented it.
        modality: as which it was prepared.
        device: where it was computed in the end (``"cpu"``, ``"cuda"``).
        seconds: wall time from the volume to its labels.
        certainty: label name → how sure the network is of all it found of it; labels that were not found are absent.
        left_out: what lay apart from structures that are one piece and was left out.
        notes: what had to be done differently (memory, device), in words.
        unlike_training: the image looks unlike those the release was trained on; False where its card does not tell.
    """

    labels: Volume
    release: Release
    modality: str
    device: str
    seconds: float
    certainty: Mapping[str, Certainty]
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    unlike_training: bool = False

    @property
    def confidence(self) -> dict[str, float]:
        """Label name → mean probability, in [0, 1], of the voxels given that label."""
        return {name: certainty.confidence for name, certainty in self.certainty.items()}


class Segmenter:
    """Segments volumes, keeping the last release's network in memory so that the next volume is quick.

    Args:
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, or a torch device.

    Raises:
        CannotDoHereError: ``device.unavailable``.
    """

    def __init__(self, device: str | torch.device = "auto") -> None:
        self.device = choose_device(device) if isinstance(device, str) else device
        self._note = card_note(device, self.device) if isinstance(device, str) else None
        self._kept: tuple[tuple[str, str], torch.nn.Module] | None = None

    def segment(
        self, volume: Volume, release: Release, progress: Progress | None = None, *, modality: str | None = None
    ) -> Segmentation:
        """Return the segmentation of ``volume`` by ``release``.

        Args:
            volume: any grid; as many channels as the release's network takes.
            release: an opened, hence verified release.
            progress: told of every tile; cancels within one.
            modality: as which the volume is prepared; None takes the volume's own, else the release's only one.

        Raises:
            BadInputError: ``release.wrong-modality``, ``release.weights-*``, ``weights.*``, ``image.*``.
            CannotDoHereError: ``device.memory``.
            CancelledError: the user cancelled.
        """
        started = time.perf_counter()
        told = progress or Progress()
        chosen = _modality_for(volume, release, modality)
        preprocessing = release.card.modalities[chosen]
        told.update(0.0, "preparing the image")
        prepared = prepare(volume, preprocessing)
        told.update(0.08, "loading the model")
        predictor = make_predictor(
            self._network_of(release),
            release.card.network,
            release.card.patch_size,
            self.device,
            standardise=preprocessing.standardise,
            values=[label.value for label in release.card.given_labels],
        )
        found = predict_labels(predictor, prepared, release.card.contract, told.part(0.1, 0.95))
        told.update(1.0, "segmented")
        return Segmentation(
            labels=found.labels,
            release=release,
            modality=chosen,
            device=predictor.tiling.device.type,
            seconds=time.perf_counter() - started,
            certainty=found.certainty,
            left_out=found.left_out,
            notes=(*filter(None, [self._note]), *predictor.notes),
            unlike_training=_is_unlike_training(prepared, release, chosen),
        )

    def _network_of(self, release: Release) -> torch.nn.Module:
        key = (str(release.path), release.card.weights_sha256)
        if self._kept is None or self._kept[0] != key:
            self._kept = None  # two networks at once would need twice the memory
            with torch.random.fork_rng(devices=[]):
                network = build_network(release.card.network)
            load_weights(network, release.weights())
            if self.device.type == "cpu":
                lay_out(network, release.card.network.dimensions)
            self._kept = (key, network.eval())  # the predictor moves it, and knows what to do where it does not fit
        return self._kept[1]


def _modality_for(volume: Volume, release: Release, wanted: str | None) -> str:
    offered = sorted(release.card.modalities)
    chosen = wanted or volume.modality or (offered[0] if len(offered) == 1 else None)
    if chosen is None or chosen not in offered:
        raise BadInputError(
            "release.wrong-modality",
            f"{release.id} segments {', '.join(offered)} images; this one is {chosen or 'of unknown modality'}.",
            "Choose a release for this modality, or say which modality the image is.",
        )
    return chosen


def _is_unlike_training(prepared: Prepared, release: Release, modality: str) -> bool:
    usual = release.card.usual.get(modality)
    if usual is None or usual.look is None:
        return False
    return looks_unlike(image_features(prepared.image), usual.look)


class Predicted(NamedTuple):
    """A prediction on the original grid; see ``Segmentation``."""

    labels: Volume
    certainty: Mapping[str, Certainty]
    left_out: tuple[LeftOut, ...]


def predict_labels(predictor: Predictor, prepared: Prepared, contract: LabelContract, progress: Progress) -> Predicted:
    """Return the labels on the original grid, structures that are one piece as one piece."""
    predicting, restoring = progress.part(0.0, 0.9), progress.part(0.9, 1.0)
    if 2 * predictor.config.out_channels * prepared.image[0].size > SCORES_BYTES:
        counter = CertaintyCounter(predictor.config.out_channels)
        labels = restore_labels(predictor.labels(prepared.image, predicting, counter), prepared)
        boxes = ndimage.find_objects(labels.array[0])  # on the finer grid a speck may have got lost
        found = {n: sure for n, sure in counter.found().items() if 0 < n <= len(boxes) and boxes[n - 1] is not None}
    else:
        labels, found = most_probable(predictor.probabilities(prepared.image, predicting), prepared, restoring)
    certainty = {label.name: found[label.value] for label in contract.labels if label.value in found}
    return Predicted(labels, certainty, keep_single_pieces(labels.array[0], contract))
