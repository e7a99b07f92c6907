"""What the See tab says of a sample, in plain words."""

import html
from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from .Parameters import SURE
from .SeePictures import ORIGINAL_COLOR, REFERENCE_COLOR, SAMPLE_COLOR
from .SeeTypes import GinSettings, Sample, Scene
from .WordsForPeople import modalityName

if TYPE_CHECKING:
    from slicer import vtkMRMLSegmentationNode


def seenAsWords(scene: Scene) -> str:
    """Return what the image was taken for, and how sure that is where it was detected."""
    name = modalityName(scene.modality)
    if scene.confidence >= 1.0:
        return _("Prepared as {modality}.").format(modality=name)
    words = _("Prepared as {modality}, {percent} % sure.").format(modality=name, percent=round(100 * scene.confidence))
    return words if scene.confidence >= SURE else words + " " + _("Say above what it is if that is wrong.")


def outlineWords(node: "vtkMRMLSegmentationNode | None") -> str:
    """Return why a segmentation's outlines are not shown and what to do; ``""`` where they are."""
    if node is None or node.GetSegmentation().GetNumberOfSegments() == 0:
        return ""
    if node.GetParentTransformNode() is not None:
        return _("No outline is shown: a transform is applied to the segmentation. Harden it (Transforms module).")
    if not node.GetSegmentation().ContainsRepresentation("Binary labelmap"):
        return _(
            "No outline is shown: the segmentation has contours or surfaces only. Create its representation 'Binary "
            "labelmap' in the Segmentations module."
        )
    return ""


def measureWords(sample: Sample, scene: Scene) -> str:
    """Return how far a sample is from the original, and from the reference if there is one, as rich text."""
    lines = [
        _("<b>Sample {number}</b>, strength {share:.2f}").format(number=sample.number + 1, share=sample.alpha),
        _("Brightness: {value:+.2f} ({words})").format(
            value=sample.correlation, words=_correlationWords(sample.correlation)
        ),
        _("Edges: {value:.2f} ({words})").format(value=sample.edges, words=_edgeWords(sample.edges)),
        _("Histogram: {value:.2f} SD from the original's").format(value=sample.histogramDistance),
    ]
    if sample.referenceDistance is not None and scene.referenceDistance is not None:
        closer = sample.referenceDistance < scene.referenceDistance
        lines.append(
            _("{value:.2f} SD from the reference's (the original: {original:.2f}), {words}").format(
                value=sample.referenceDistance,
                original=scene.referenceDistance,
                words=_("closer than the original") if closer else _("no closer than the original"),
            )
        )
    return "<br>".join(lines)


def legendWords(hasReference: bool) -> str:
    """Return which color of the histogram is which, as rich text."""
    entries = [(ORIGINAL_COLOR, _("original")), (SAMPLE_COLOR, _("sample"))]
    if hasReference:
        entries.append((REFERENCE_COLOR, _("reference")))
    return " &nbsp; ".join(
        f'<span style="color:rgb({red},{green},{blue})">■</span> {html.escape(name)}'
        for (red, green, blue), name in entries
    )


def settingsWords(settings: GinSettings) -> str:
    """Return settings in a sentence."""
    words = _("strength {low:.2f} to {high:.2f}, {layers} layers, kernels {kernels}, {whose}")
    return words.format(
        low=settings.alphaLow,
        high=settings.alphaHigh,
        layers=settings.layers,
        kernels=", ".join(str(side) for side in settings.kernelSizes),
        whose=_("one look a batch") if settings.perBatch else _("one look an image"),
    )


def _correlationWords(value: float) -> str:
    if value < -0.3:
        return _("dark and bright have changed places")
    if value > 0.95:
        return _("hardly changed")
    return _("changed") if value > 0.3 else _("much changed")


def _edgeWords(value: float) -> str:
    if value > 0.8:
        return _("anatomy is where it was")
    return _("edges are weaker") if value > 0.4 else _("little of the anatomy is left")
