"""What the module can ask of the worker, and with which arguments.

Everything heavy is imported where it is used, so that ``initialize`` answers at once.
"""

import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, StrictInt

from FedSegCore import __version__
from FedSegCore.common.files import sha256_of
from FedSegCore.common.monai_import import import_monai
from FedSegCore.common.progress import Progress
from FedSegCore.worker.environment import available_devices, package_versions
from FedSegCore.worker.exporting import ExportedSegment, export_segmentation
from FedSegCore.worker.speeds import Run, SpeedBook, Watch, default_book, voxel_counts

if TYPE_CHECKING:
    from FedSegCore.inference.segment_file import Segmented
    from FedSegCore.inference.segmenter import Segmenter
    from FedSegCore.worker.gin_preview import GinPreviewer

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


class TrustParams(Params):
    """Whose releases may be used; with neither, any that is whole, and it is told as not trusted.

    Attributes:
        site: a site's folder; the release key of its invitation is trusted.
        trusted: a public release key (``coordinator.pub``) that is trusted too.
    """

    site: Path | None = None
    trusted: Path | None = None

    def keys(self) -> frozenset[bytes] | None:
        """Return the raw keys; raises BadInputError ``key.*`` or ``site.*``."""
        from FedSegCore.federation.site.trust import trusted_release_keys

        return trusted_release_keys(self.site, self.trusted)


class ReleasesParams(TrustParams):
    """Which releases to list.

    Attributes:
        folder: holds them.
        modality: only those that segment this modality.
    """

    folder: Path
    modality: Modality | None = None


class SegmentParams(InspectParams, TrustParams):
    """An image to segment.

    Attributes:
        releases: folder of releases.
        release: name, or name with version (``"demo-CT-v3"``); None takes the newest that fits.
        device: where to compute.
        output: the segmentation to write, ``.seg.nrrd``, ``.nrrd`` or ``.nii.gz``; its folder exists.
        pieces: a folder to write what the module shows, piece by piece (``volumes.display_pieces``).
    """

    releases: Path
    release: str | None = Field(default=None, max_length=100)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    output: Path | None = None
    pieces: Path | None = None


class GinSettings(Params):
    """What GIN draws.

    Attributes:
        alpha: range of the blend weight.
        layers: convolution layers.
        kernel_sizes: odd kernel sides to draw from.
        per_batch: one network for all samples instead of one each.
    """

    alpha: tuple[Alpha, Alpha] = (0.0, 1.0)
    layers: Annotated[StrictInt, Field(ge=2, le=8)] = 4
    kernel_sizes: Annotated[tuple[StrictInt, ...], Field(min_length=1, max_length=4)] = (1, 3)
    per_batch: bool = False


class GinPreviewParams(InspectParams, GinSettings):
    """GIN samples of an image.

    Attributes:
        samples: how many.
        first: number of the first one.
        seed: the same seed gives the same samples.
        slices: only this many slices (a first picture soon); None takes the whole volume.
        around: LPS mm; the slice through this point is the one to look at. None chooses a telling one.
        reference: a real image to compare the samples' histograms with.
        reference_modality: its DICOM modality code where the client knows it.
        with_original: write the prepared original too.
        folder: where the samples and their parameters are written.
    """

    samples: Annotated[StrictInt, Field(ge=1, le=64)] = 4
    first: Annotated[StrictInt, Field(ge=0, le=1000)] = 0
    seed: Annotated[StrictInt, Field(ge=0, lt=2**63)] = 0
    slices: Annotated[StrictInt, Field(ge=1)] | None = None
    around: tuple[float, float, float] | None = None
    reference: Path | None = None
    reference_modality: Modality | None = None
    with_original: bool = True
    folder: Path


class GinReplayParams(Params):
    """A sample to be made again.

    Attributes:
        image: the image it was made of.
        frame: which volume of a 4-D image.
        preprocessing: as ``gin.preview`` gave it.
        parameters: the sample's parameter file, as base64.
        output: the volume to write, ``.nrrd``; its folder exists.
    """

    image: Path
    frame: Annotated[StrictInt, Field(ge=0)] | None = None
    preprocessing: dict[str, Any]
    parameters: Annotated[str, Field(max_length=4 * 1024**2)]
    output: Path


class GinUseParams(Params):
    """GIN settings a site is to train with from now on.

    Attributes:
        site: the site's folder.
        settings: None goes back to the federation's.
    """

    site: Path
    settings: GinSettings | None


class ExpectParams(Params):
    """An image of which to say how long it will take.

    Attributes:
        releases: folder of releases.
        release: name with version.
        modality: DICOM modality code.
        device: where to compute.
        size: voxels along (i, j, k).
        spacing: mm along (i, j, k).
    """

    releases: Path
    release: str = Field(max_length=100)
    modality: Modality
    device: Literal["auto", "cpu", "cuda"] = "auto"
    size: tuple[PositiveInt, PositiveInt, PositiveInt]
    spacing: tuple[PositiveFloat, PositiveFloat, PositiveFloat]


class ExportParams(Params):
    """A segmentation to write, see ``exporting.export_segmentation``.

    Attributes:
        labels: the label map.
        segments: what is in it.
        made_by: the release it was made by.
        output: the file to write.
        series: files of the DICOM series, for DICOM SEG.
    """

    labels: Path
    segments: Annotated[tuple[ExportedSegment, ...], Field(min_length=1, max_length=255)]
    made_by: str = Field(default="FedSegSlicer", min_length=1, max_length=64)
    output: Path
    series: tuple[Path, ...] = ()


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
        from FedSegCore.worker.site_methods import SiteMethods

        self._segmenters: dict[str, Segmenter] = {}
        self._speeds = SpeedBook(default_book())
        self._previewer: GinPreviewer | None = None
        self._table = {
            "initialize": Method(InitializeParams, quick=self._initialize),
            "inspect": Method(InspectParams, slow=self._inspect),
            "releases": Method(ReleasesParams, slow=self._releases),
            "segment": Method(SegmentParams, slow=self._segment),
            "expect": Method(ExpectParams, slow=self._expect),
            "export": Method(ExportParams, slow=self._export),
            "gin.preview": Method(GinPreviewParams, slow=self._gin_preview),
            "gin.replay": Method(GinReplayParams, slow=self._gin_replay),
            "gin.use": Method(GinUseParams, slow=self._gin_use),
            **SiteMethods().table(),
        }

    def find(self, name: str) -> Method | None:
        """Return the method called ``name``, None if there is none."""
        return self._table.get(name)

    def warm_up(self) -> None:
        """Import what the first segmentation needs, while there is nothing else to do.

        A worker that is looking at GIN samples is not held up by it.
        """
        if self._previewer is not None:
            return
        import_monai()
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

        return list_for_people(params.folder, params.modality, progress, params.keys())

    def _segment(self, params: SegmentParams, progress: Progress) -> dict[str, Any]:
        progress.update(0.0, "starting")
        import_monai()
        from FedSegCore.inference.segment_file import SegmentOrder, segment_file
        from FedSegCore.inference.segmenter import Segmenter

        if params.device not in self._segmenters:
            # One at a time: two networks on two devices would hold twice the memory.
            self._segmenters = {params.device: Segmenter(params.device)}
        order = SegmentOrder(
            image=params.image,
            releases=params.releases,
            output=params.output,
            pieces=params.pieces,
            release=params.release,
            modality=params.modality,
            frame=params.frame,
            trusted=params.keys(),
        )
        with Watch() as watch:
            done = segment_file(self._segmenters[params.device], order, progress)
        self._note(done, watch)
        return {**done.told, "sha256": sha256_of(params.output) if params.output is not None else None}

    def _note(self, done: "Segmented", watch: Watch) -> None:
        """Keep how long it took; a run that memory forced to change its ways says nothing of others."""
        told = done.told
        if told["notes"]:
            return
        image, network = voxel_counts(done.release.card, told["modality"], told["size"], told["spacing"])
        run = Run(release=told["release"], device=told["device"], image_voxels=image, network_voxels=network,
                  seconds=watch.seconds, memory_bytes=watch.memory_bytes)  # fmt: skip
        self._speeds.note(run)

    def _expect(self, params: ExpectParams, _progress: Progress) -> dict[str, Any]:
        from FedSegCore.models.release import choose_release

        card = choose_release(params.releases, params.modality, params.release, card_only=True).card
        image, network = voxel_counts(card, params.modality, params.size, params.spacing)
        cuda = params.device == "cuda" or (params.device == "auto" and "cuda" in available_devices())
        return self._speeds.expect(params.release, "cuda" if cuda else "cpu", image, network)

    def _export(self, params: ExportParams, progress: Progress) -> dict[str, Any]:
        return export_segmentation(
            params.labels, params.segments, params.made_by, params.output, params.series, progress
        )

    def _gin_preview(self, params: GinPreviewParams, progress: Progress) -> dict[str, Any]:
        return self._gin(progress).preview(params, progress)

    def _gin_replay(self, params: GinReplayParams, progress: Progress) -> dict[str, Any]:
        return self._gin(progress).replay(params, progress)

    def _gin(self, progress: Progress) -> "GinPreviewer":
        progress.update(0.0, "starting")
        import_monai()
        from FedSegCore.worker.gin_preview import GinPreviewer

        if self._previewer is None:
            self._previewer = GinPreviewer()
        return self._previewer

    def _gin_use(self, params: GinUseParams, progress: Progress) -> dict[str, Any]:
        progress.update(0.0, "writing down")
        from FedSegCore.worker.gin_use import use_gin_settings

        return use_gin_settings(params)
