"""Results and samples as large as a chest and abdomen CT come into the scene without a long step on the GUI thread."""

import gc
import time

import numpy as np
import pytest
import slicer
from FedSegSlicerLib.NrrdReader import readInBackground
from FedSegSlicerLib.ResultImport import ResultImport
from FedSegSlicerLib.ResultPlace import VolumePlace
from FedSegSlicerLib.SampleVolumes import SampleVolumes, keepAsVolume
from FedSegSlicerLib.SegmentationResult import findResult
from FedSegSlicerLib.VolumeExchange import VolumeExchange, VolumeSnapshot, writeNrrd
from without_qt import EventLoop

from FedSegCore.common.progress import Progress
from FedSegCore.phantoms.torso import TORSO_CONTRACT
from FedSegCore.volumes.display_pieces import write_pieces
from FedSegCore.volumes.volume import Grid, Volume

pytestmark = pytest.mark.slicer

SHAPE = (240, 480, 480)
MANY_SLICES = (700, 96, 96)
LONGEST_SECONDS = 0.1
"""How long the GUI thread may compute in one go; on a machine on which copying the label map once (about 0.02 s) takes
more than a fifth of that, five such copies."""


class MeteredLoop(EventLoop):
    """A loop that notes how long each call kept this thread computing, whoever else wanted the processor."""

    def __init__(self):
        super().__init__()
        self.busy = []

    def callLater(self, milliseconds, function):
        def metered():
            start = time.thread_time()
            function()
            self.busy.append(time.thread_time() - start)

        super().callLater(milliseconds, metered)


def five_organs(shape):
    k, j, i = (np.arange(size).reshape(line) * (whole / size) for size, whole, line in zip(
        shape, SHAPE, ((-1, 1, 1), (1, -1, 1), (1, 1, -1)), strict=True))  # fmt: skip
    labels = np.zeros(shape, np.uint8)
    for value, (center, radii) in enumerate(
        [((120, 240, 160), (80, 150, 150)), ((100, 300, 350), (40, 40, 60)), ((140, 200, 400), (30, 35, 35)),
         ((60, 120, 380), (50, 60, 60)), ((120, 240, 160), (12, 12, 12))], start=1
    ):  # fmt: skip
        inside = sum(((axis - c) / r) ** 2 for axis, c, r in zip((k, j, i), center, radii, strict=True)) < 1
        labels[inside] = value
    return labels


@pytest.fixture
def limit():
    block = np.ones(SHAPE, np.uint8)
    start = time.thread_time()
    block.copy()
    gc.freeze()  # what other tests left is not gone through meanwhile, as in ``Ticks``
    yield max(LONGEST_SECONDS, 5 * (time.thread_time() - start))
    gc.unfreeze()


@pytest.mark.parametrize("shape", [SHAPE, MANY_SLICES])
def test_no_step_of_bringing_in_a_large_result_is_long(limit, tmp_path, shape):
    labels = five_organs(shape)
    volume = slicer.util.addVolumeFromArray(np.zeros(shape, np.int16))
    described = write_pieces(Volume(labels[None], Grid(shape)), TORSO_CONTRACT.labels, tmp_path, Progress())
    loop, done, problems = MeteredLoop(), [], []
    start = time.thread_time()
    ResultImport(loop.callLater, volume, VolumePlace(volume), tmp_path,
                           {"pieces": described, "release": "tiny-CT-v1"}, done.append, problems.append)  # fmt: skip
    loop.busy.append(time.thread_time() - start)
    assert loop.runUntil(lambda: done or problems, 60), problems
    assert max(loop.busy) < limit
    node = findResult(volume)
    assert node.GetSegmentation().GetNumberOfSegments() == 5
    found = slicer.util.arrayFromSegmentBinaryLabelmap(node, "Segment_2", volume)
    np.testing.assert_array_equal(found > 0, labels == 2)


@pytest.mark.parametrize("shape", [(700, 256, 256), (240, 480, 480)])
def test_handing_over_a_large_volume_is_short_too(limit, shape):
    volume = slicer.util.addVolumeFromArray(np.zeros(shape, np.int16))
    loop, done = MeteredLoop(), []
    exchange = VolumeExchange(loop.callLater)
    start = time.thread_time()
    exchange.export(volume, done.append, done.append)
    loop.busy.append(time.thread_time() - start)
    assert loop.runUntil(lambda: done, 60)
    assert max(loop.busy) < limit
    assert done[0].stat().st_size > 2 * np.prod(shape)
    exchange.clear()


def test_no_step_of_showing_and_keeping_a_large_sample_is_long(limit, tmp_path):
    """As See does: read on a thread, put into the scene under the first slices' node, kept with a copy of its own."""
    voxels = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    place = ((0.8, 0, 0, 5), (0, 0.8, 0, 6), (0, 0, 2, 7), (0, 0, 0, 1))
    for name, array in (("first", voxels[:5]), ("whole", voxels)):
        writeNrrd(VolumeSnapshot(array, place), tmp_path / f"{name}.nrrd")
    source = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "scan")
    loop, volumes, kept, problems = MeteredLoop(), SampleVolumes(), [], []

    def keep():
        facts = {"seed": 0, "number": 0}
        kept.append(keepAsVolume(volumes.node(1), source, "AAAA", facts, loop.callLater, problems.append))

    def put(snapshot):
        volumes.put(1, "Sample 1", snapshot, (-2.0, 2.0))
        if snapshot.array.shape == SHAPE:
            loop.callLater(0, keep)
        else:
            readInBackground(tmp_path / "whole.nrrd", loop.callLater, put, problems.append)

    readInBackground(tmp_path / "first.nrrd", loop.callLater, put, problems.append)
    assert loop.runUntil(lambda: kept, 60), problems
    shown = slicer.util.arrayFromVolume(volumes.node(1))

    def own():
        return slicer.util.arrayFromVolume(kept[0])

    assert loop.runUntil(lambda: not np.shares_memory(own(), shown), 60), problems
    assert max(loop.busy) < limit, sorted(loop.busy)[-5:]
    for found in (own(), shown):
        np.testing.assert_array_equal(found, voxels)
    own()[0] = 7.0
    assert not (shown[0] == 7.0).any()
    volumes.clear()
    np.testing.assert_array_equal(own()[1:], voxels[1:])
