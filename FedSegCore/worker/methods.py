"""What the module can ask of the worker, and with which arguments.

Everything heavy is imported where it is used, so that ``initialize`` answers at once.
"""

import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt

from FedSegCore import __version__
from FedSegCore.common.files import sha256_of
from FedSegCore.common.progress import Progress
from FedSegCore.worker.environment import available_devices, package_versions

if TYPE_CHECKING:
    from FedSegCore.inference.segmenter import Segmenter

PROTOCOL = 1
"""Raised whenever a change of this file would confuse an older module."""

Modality = Annotated[str, Field(pattern=r"^[A-Z]{2,16}$")]
Alpha = Annotated[float, Field(ge=0.0, le=1.0)]


class Params(BaseModel):
    """Arguments by name; unknown ones are refused, so that a misspelt option is not silently ignored."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class InitializeParams(Params):
    """Who is asking.

    Attributes:
        client: name and version of the client, for the log.
        protocol: the protocol version the client speaks.
    """

    client: str = Field(default="", max_length=100)
    protocol: StrictInt = PROTOCOL


class InspectParams(Params):
    """An image to look at.

    Attributes:
        image: its file.
        modality: DICOM modality code where the client knows it.
        frame: which volume of a 4-D image.
    """

    image: Path
    modality: Modality | None = None
    frame: Annotated[StrictInt, Field(ge=0)] | None = None


class ReleasesParams(Params):
    """Which releases to list.

    Attributes:
        folder: holds them.
        modality: only those that segment this modality.
    """

    folder: Path
    modality: Modality | None = None


class SegmentParams(InspectParams):
    """An image to segment.

    Attributes:
        releases: folder of releases.
        release: name, or name with version (``"demo-CT-v3"``); None takes the newest that fits.
        device: where to compute.
        output: the segmentation to write, ``.seg.nrrd``, ``.nrrd`` or ``.nii.gz``; its folder exists.
    """

    releases: Path
    release: str | None = Field(default=None, max_length=100)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    output: Path


class GinPreviewParams(InspectParams):
    """GIN samples of an image.

    Attributes:
        samples: how many.
        seed: of the first sample; the same seed gives the same samples.
        alpha: range of the blend weight.
        layers: convolution layers.
        kernel_sizes: odd kernel sides to draw from.
        per_batch: one network for all samples instead of one each.
        slices: only this many slices around the middle (a first picture soon); None takes the whole volume.
        folder: where the samples and their parameters are written.
    """

    samples: Annotated[StrictInt, Field(ge=1, le=64)] = 4
    seed: Annotated[StrictInt, Field(ge=0, lt=2**63)] = 0
    alpha: tuple[Alpha, Alpha] = (0.0, 1.0)
    layers: Annotated[StrictInt, Field(ge=2, le=8)] = 4
    kernel_sizes: tuple[StrictInt, ...] = (1, 3)
    per_batch: bool = False
    slices: Annotated[StrictInt, Field(ge=1)] | None = None
    folder: Path


@dataclass(frozen=True)
class Method:
    """One thing the worker can be asked.

    Attributes:
        params: its arguments.
        quick: answers at once on the reading thread; or
        slow: answers from the work thread, with progress.
    """

    params: type[BaseModel]
    quick: Callable[[Any], Any] | None = None
    slow: Callable[[Any, Progress], Any] | None = None


class Methods:
    """The worker's methods and what they keep between requests: the last segmenter, with its network in memory."""

    def __init__(self) -> None:
        self._segmenters: dict[str, Segmenter] = {}
        self._table = {
            "initialize": Method(InitializeParams, quick=self._initialize),
            "inspect": Method(InspectParams, slow=self._inspect),
            "releases": Method(ReleasesParams, slow=self._releases),
            "segment": Method(SegmentParams, slow=self._segment),
            "gin.preview": Method(GinPreviewParams, slow=self._gin_preview),
        }

    def find(self, name: str) -> Method | None:
        """Return the method called ``name``, None if there is none."""
        return self._table.get(name)

    def warm_up(self) -> None:
        """Import what the first segmentation needs, while there is nothing else to do."""
        import FedSegCore.inference.segment_file  # noqa: F401

    def _initialize(self, _params: InitializeParams) -> dict[str, Any]:
        return {
            "protocol": PROTOCOL,
            "version": __version__,
            "python": platform.python_version(),
            "packages": package_versions(),
            "devices": available_devices(),
            "methods": sorted([*self._table, "shutdown"]),
        }

    def _inspect(self, params: InspectParams, progress: Progress) -> dict[str, Any]:
        from FedSegCore.worker.inspecting import inspect_image

        return inspect_image(params.image, params.modality, params.frame, progress)

    def _releases(self, params: ReleasesParams, progress: Progress) -> dict[str, Any]:
        from FedSegCore.worker.listing import list_for_people

        return list_for_people(params.folder, params.modality, progress)

    def _segment(self, params: SegmentParams, progress: Progress) -> dict[str, Any]:
        progress.update(0.0, "starting")
        from FedSegCore.inference.segment_file import SegmentOrder, segment_file
        from FedSegCore.inference.segmenter import Segmenter

        if params.device not in self._segmenters:
            # One at a time: two networks on two devices would hold twice the memory.
            self._segmenters = {params.device: Segmenter(params.device)}
        order = SegmentOrder(
            image=params.image,
            releases=params.releases,
            output=params.output,
            release=params.release,
            modality=params.modality,
            frame=params.frame,
        )
        done = segment_file(self._segmenters[params.device], order, progress)
        return {**done, "sha256": sha256_of(params.output)}

    def _gin_preview(self, params: GinPreviewParams, progress: Progress) -> dict[str, Any]:
        progress.update(0.0, "starting")
        from FedSegCore.worker.gin_preview import write_gin_samples

        return write_gin_samples(params, progress)
