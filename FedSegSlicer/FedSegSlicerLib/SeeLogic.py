"""What the See tab does, without Qt: samples of GIN beside the original, kept ones, and settings for training."""

import base64
import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _

from .Errors import UserError
from .JsonRpcClient import Progress
from .NrrdReader import readInBackground, readInTurn, unreadable
from .SampleVolumes import (
    PARAMETERS,
    SOURCE,
    SampleVolumes,
    factsOf,
    keepAsVolume,
    setVoxels,
    showLike,
    volumeClass,
    windowAround,
)
from .SeeTypes import GinSettings, Look, Sample, Scene, SeeState, Step
from .Signal import Signal
from .VolumeExchange import (
    VolumeExchange,
    VolumeSnapshot,
    checkVolume,
    goneError,
    knownModality,
    ofTemporaryFolder,
    unwritable,
)
from .WorkerProcess import CallLater
from .WorkerSession import Request, WorkerSession, cancelledError

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode

GIVE_UP_PATIENCE_MS = 20_000
"""How long the worker may go on with samples that are no longer wanted."""


class SeeLogic:
    """Makes and keeps GIN samples by the worker; everything is told through signals, nothing waits.

    Signals: ``changed()`` pictures or measures are new; ``progressed(Progress)``; ``finished()``;
    ``failed(UserError)``; ``used(site, GinSettings or None)`` a site trains with these settings from now on.

    Args:
        session: the worker.
        exchange: files to the worker for the image.
        referenceExchange: the same for the image to compare with.
        callLater: see CallLater.

    >>> logic.changed.connect(lambda: print(logic.samples))
    >>> logic.show(Look(volumeNode, GinSettings(alphaHigh=0.5), seed=7))
    >>> logic.keep(2)
    """

    def __init__(
        self,
        session: WorkerSession,
        exchange: VolumeExchange,
        referenceExchange: VolumeExchange,
        callLater: CallLater,
    ) -> None:
        self.session = session
        self.changed, self.progressed, self.finished = Signal(), Signal(), Signal()
        self.failed, self.used = Signal(), Signal()
        self.state = SeeState.IDLE
        self.scene: Scene | None = None
        self.samples: dict[int, Sample] = {}
        self.volumes = SampleVolumes()
        self._exchange, self._referenceExchange = exchange, referenceExchange
        self._callLater = callLater
        self._request: Request | None = None
        self._run = 0
        self._made: dict[int, dict[str, Any]] = {}

    def show(self, look: Look) -> None:
        """Make samples: the first slices of all, then each as a whole; what runs already is given up.

        Raises:
            UserError: the volume or the reference cannot be looked at; nothing was started.
        """
        checkVolume(look.volume)
        if look.reference is not None:
            checkVolume(look.reference)
        self._giveUp()
        self._tidy()
        number = self._run
        self.state = SeeState.RUNNING
        params, steps = look.toWorker(), look.steps()

        def begin(path: Path) -> None:
            params["image"] = str(path)
            if look.reference is None:
                self._nextStep(number, look, params, steps, len(steps))
                return
            try:
                self._referenceExchange.export(look.reference, goOn, lambda error: self._fail(number, error))
            except UserError as error:  # what could be exported a moment ago was removed, or transformed
                self._fail(number, error)

        def goOn(path: Path) -> None:
            params["reference"] = str(path)
            known = knownModality(look.reference)
            if known is not None:
                params["reference_modality"] = known
            self._nextStep(number, look, params, steps, len(steps))

        self.progressed.emit(Progress(0.0, _("handing over the volume"), None))
        self._exchange.export(look.volume, begin, lambda error: self._fail(number, error))

    def cancel(self) -> None:
        """Stop; what is there already stays."""
        if self.state is SeeState.RUNNING:
            number = self._run
            if self._request is not None:
                self.session.cancel(self._request)
            self._callLater(0, lambda: self._fail(number, cancelledError()))

    def clear(self) -> None:
        """Stop, and remove what was made, but for kept samples."""
        self._giveUp()
        self.volumes.clear()
        self.scene, self.samples, self._made = None, {}, {}
        self.changed.emit()

    def close(self) -> None:
        """End the worker, delete the files, and say nothing more."""
        self._run += 1
        self.state, self._request = SeeState.IDLE, None
        self.session.close()
        self._exchange.clear()
        self._referenceExchange.clear()

    def folder(self) -> Path:
        """Return a private folder that is deleted in the end, for pictures."""
        return self._exchange.folder()

    def keep(self, number: int) -> "vtkMRMLScalarVolumeNode":
        """Return sample ``number`` as a volume that is listed, saved with the scene and can be made again exactly.

        Raises:
            UserError: ``sample.not-whole``: only its first slices are there; ``volume.gone``.
        """
        sample, node = self.samples.get(number), self.volumes.node(number + 1)
        if sample is None or node is None or not sample.isWhole or self.scene is None:
            raise UserError(
                "sample.not-whole",
                _("Only some slices of this sample have been made so far."),
                _("Wait until the whole volume is there."),
            )
        look = self.scene.look
        if not slicer.mrmlScene.IsNodePresent(look.volume):
            raise goneError()
        made = self._made[number]
        facts = {
            **look.settings.toWorker(),
            "seed": look.seed,
            "number": number,
            "share": sample.alpha,
            "preprocessing": made["preprocessing"],
            "sha256": made["sha256"],
        }
        return keepAsVolume(node, look.volume, made["parameters"], facts, self._callLater, self.failed.emit)

    def makeAgain(
        self, kept: "vtkMRMLScalarVolumeNode", onDone: Callable[["vtkMRMLScalarVolumeNode", bool], None]
    ) -> None:
        """Make a kept sample anew from its parameters and the volume it was made of, in a new volume node.

        Args:
            kept: a volume that ``keep`` returned, maybe in a scene that was saved and loaded since.
            onDone: called with the new node and whether its voxels are those noted when the sample was kept.

        Raises:
            UserError: ``sample.not-kept``, ``volume.gone``, ``volume.*``; later problems go to ``failed``.
        """
        facts, source = factsOf(kept), kept.GetNodeReference(SOURCE)
        if facts is None:
            raise UserError(
                "sample.not-kept", _("This volume is no kept GIN sample."), _("Choose one made by 'Keep this one'.")
            )
        if source is None:
            raise goneError()
        checkVolume(source)
        self._giveUp()
        self.progressed.emit(Progress(0.0, _("handing over the volume"), None))
        number = self._run
        output = self.folder() / f"again-{number}.nrrd"
        self.state = SeeState.RUNNING
        params = {
            "preprocessing": facts["preprocessing"],
            "parameters": kept.GetAttribute(PARAMETERS),
            "output": str(output),
        }

        def ask(path: Path) -> None:
            self._ask(number, "gin.replay", {**params, "image": str(path)}, read)

        def read(result: dict[str, Any]) -> None:
            same = result["sha256"] == facts["sha256"]
            readInBackground(output, self._callLater, lambda snapshot: put(snapshot, same), fail)

        def put(snapshot: VolumeSnapshot, same: bool) -> None:
            output.unlink(missing_ok=True)
            if number != self._run:
                return
            name = slicer.mrmlScene.GenerateUniqueName(_("{volume} made again").format(volume=kept.GetName()))
            node = slicer.mrmlScene.AddNewNodeByClass(volumeClass(snapshot), name)
            node.SetNodeReferenceID(SOURCE, source.GetID())
            showLike(node, kept)
            setVoxels(node, snapshot)
            self.state, self._request = SeeState.IDLE, None
            onDone(node, same)
            self.finished.emit()

        def fail(error: UserError) -> None:
            self._fail(number, error)

        self._exchange.export(source, ask, fail)

    def useForTraining(self, site: str, settings: GinSettings | None) -> None:
        """Let a site of this computer train with these settings, None for its federation's; ``used`` follows.

        Args:
            site: the site's folder.
            settings: what to train with.
        """
        chosen = None if settings is None else settings.toWorker()
        self.session.request(
            "gin.use",
            {"site": site, "settings": chosen},
            lambda result: self.used.emit(result["site"], settings),
            self.failed.emit,
        )

    # Steps

    def _tidy(self) -> None:
        """Delete what is left of samples' files."""
        for left in self.folder().glob("samples-*"):
            shutil.rmtree(left, ignore_errors=True)

    def _giveUp(self) -> None:
        self._run += 1
        if self._request is not None:
            # The worker is needed again at once: ending it would cost more than waiting for it.
            self.session.cancel(self._request, GIVE_UP_PATIENCE_MS)
        self.state, self._request = SeeState.IDLE, None

    def _ask(
        self,
        number: int,
        method: str,
        params: dict[str, Any],
        onResult: Callable[[dict[str, Any]], None],
        place: tuple[float, float] = (0.0, 1.0),
        words: str = "",
    ) -> None:
        """Ask the worker for a part of a run that takes from ``place[0]`` to ``place[1]`` of its progress."""
        if number != self._run:
            return

        def tell(progress: Progress) -> None:
            if number == self._run:
                fraction = place[0] + (place[1] - place[0]) * progress.fraction
                self.progressed.emit(Progress(fraction, words or progress.stage, None))

        self._request = self.session.request(
            method,
            params,
            onResult=lambda result: onResult(result) if number == self._run else None,
            onError=lambda error: self._fail(number, error),
            onProgress=tell,
        )

    def _fail(self, number: int, error: UserError) -> None:
        if number != self._run or self.state is SeeState.IDLE:
            return
        self._run += 1
        self.state, self._request = SeeState.IDLE, None
        with contextlib.suppress(UserError):
            self._tidy()  # on a full disk they would take the room that is asked for
        self.failed.emit(ofTemporaryFolder(error))

    def _nextStep(self, number: int, look: Look, params: dict[str, Any], steps: list[Step], total: int) -> None:
        if number != self._run:
            return
        if not steps:
            self.state, self._request = SeeState.IDLE, None
            self.finished.emit()
            return
        step, rest = steps[0], steps[1:]
        try:
            folder = self.folder() / f"samples-{number}-{len(rest)}"
            folder.mkdir(exist_ok=True)
        except (OSError, UserError) as error:
            self._fail(number, error if isinstance(error, UserError) else unwritable(error))
            return
        asked = {**params, "first": step.first, "samples": step.samples, "slices": step.slices, "folder": str(folder)}
        asked["with_original"] = step.first == 0

        def answer(result: dict[str, Any]) -> None:
            slab, later = result["slab"], rest
            if step.slices is not None and slab["count"] == slab["of"]:
                later = [other for other in rest if other.slices is not None]  # the first slices are all there are
            self._load(number, look, folder, result, lambda: self._nextStep(number, look, params, later, total))

        place = (1 - len(steps) / total, 1 - len(rest) / total)
        whole = _("whole volume of sample {number}").format(number=step.first + 1)
        words = whole if step.slices is None else _("first slices")
        self._ask(number, "gin.preview", asked, answer, place, words)

    def _load(self, number: int, look: Look, folder: Path, result: dict[str, Any], onDone: Callable[[], None]) -> None:
        """Bring the files of one step into the scene, one after the other."""
        if not slicer.mrmlScene.IsNodePresent(look.volume):
            self._fail(number, goneError())
            return
        rows: dict[Path, dict[str, Any] | None] = {}
        if result["original"] is not None:
            rows[folder / result["original"]] = None
        rows |= {folder / row["image"]: row for row in result["samples"]}

        def put(path: Path, snapshot: VolumeSnapshot) -> bool:
            if number != self._run:
                return False
            row = rows[path]
            try:
                if row is None:
                    self._putOriginal(look, result, snapshot)
                else:
                    self._putSample(row, result, snapshot, folder)
                path.unlink(missing_ok=True)
            except OSError as error:
                self._fail(number, unreadable(error))
                return False
            return True

        def done() -> None:
            if number == self._run:
                shutil.rmtree(folder, ignore_errors=True)
                self.changed.emit()
                onDone()

        readInTurn(list(rows), self._callLater, put, done, lambda error: self._fail(number, error))

    def _putOriginal(self, look: Look, result: dict[str, Any], snapshot: VolumeSnapshot) -> None:
        slab = result["slab"]
        if self.scene is None or self.scene.look != look:
            self.volumes.clear(look.samples + 1)
            self.samples, self._made = {}, {}
        self.scene = Scene(
            look,
            result["modality"],
            result["confidence"],
            snapshot,
            slab["first"],
            slab["of"],
            result["slice"],
            result["look"]["original"],
            result["look"]["reference"],
            result["look"]["distance"],
        )
        name = _("Original, as a network sees it")
        self.volumes.put(0, name, snapshot, windowAround(snapshot, result["slice"] - slab["first"], 0))

    def _putSample(self, row: dict[str, Any], result: dict[str, Any], snapshot: VolumeSnapshot, folder: Path) -> None:
        number, slab = row["number"], result["slab"]
        name = _("Sample {number}").format(number=number + 1)
        window = windowAround(snapshot, result["slice"] - slab["first"], row["reach"])
        self.volumes.put(number + 1, name, snapshot, window)
        parameters = folder / row["parameters"]
        self._made[number] = {
            "parameters": base64.b64encode(parameters.read_bytes()).decode("ascii"),
            "sha256": row["sha256"],
            "preprocessing": result["preprocessing"],
        }
        parameters.unlink(missing_ok=True)
        self.samples[number] = Sample(
            number,
            row["alpha"],
            row["histogram_distance"],
            row["correlation"],
            row["edges"],
            row["reference_distance"],
            row["histogram"],
            slab["first"],
            slab["count"] == slab["of"],
        )
