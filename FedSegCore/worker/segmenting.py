"""One image file in, one segmentation file out."""

from typing import TYPE_CHECKING, Any

from FedSegCore.common.progress import Progress
from FedSegCore.inference.segmenter import Segmenter
from FedSegCore.models.release import choose_release
from FedSegCore.volumes.modality import detect_modality
from FedSegCore.volumes.reading import read_volume
from FedSegCore.volumes.segmentation_file import segment_volumes, write_segmentation

if TYPE_CHECKING:
    from FedSegCore.worker.methods import SegmentParams


def segment_to_file(segmenter: Segmenter, params: "SegmentParams", progress: Progress) -> dict[str, Any]:
    """Segment ``params.image`` and write ``params.output``, whole or not at all.

    Returns:
        ``release``, ``modality``, ``device``, ``seconds``, ``confidence`` and ``segments``, a list of
        {name, value, code, volume_ml}.
    """
    progress.update(0.0, "Reading the image")
    volume = read_volume(params.image, modality=params.modality, frame=params.frame)
    modality = params.modality or detect_modality(volume).modality
    progress.update(0.05, "Checking the release")
    release = choose_release(params.releases, modality, params.release)
    result = segmenter.segment(volume, release, progress.part(0.1, 0.9))
    progress.update(0.9, "Writing the segmentation")
    write_segmentation(result.labels, release.card.contract, params.output)
    progress.update(1.0, "Done")
    return {
        "release": release.id,
        "modality": modality,
        "device": str(result.device),
        "seconds": round(float(result.seconds), 3),
        "confidence": result.confidence,
        "segments": segment_volumes(result.labels, release.card.contract),
    }
