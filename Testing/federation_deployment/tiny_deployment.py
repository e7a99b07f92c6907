"""A federation small enough to train in well under a second, and what tests ask about processes."""

import json
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Listener
from pathlib import Path

import numpy as np
import psutil
import SimpleITK as sitk

from FedSegCore.federation.config import AggregationConfig, FederationConfig
from FedSegCore.federation.site.cohort_trainer import CohortTrainer
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.policy import SitePolicy, TrainingLimits
from FedSegCore.federation.site.trainer_server import TrainerServer
from FedSegCore.learning.config import TrainingConfig
from FedSegCore.networks.config import NetworkConfig
from FedSegCore.volumes.labels import CodedTerm, Label, LabelContract
from FedSegCore.volumes.preprocessing import Preprocessing

CONTRACT = LabelContract(
    labels=(Label(name="blob", value=1, type=CodedTerm(code="10200004", meaning="Liver"), colour=(200, 80, 60)),)
)


def tiny_federation(**changes: object) -> FederationConfig:
    """Return a federation whose rounds take well under a second of training."""
    given = {
        "name": "tiny",
        "contract": CONTRACT,
        "rounds": 2,
        "seed": 3,
        "min_sites": 2,
        "join_deadline_s": 90.0,
        "round_deadline_s": 60.0,
        "aggregation": AggregationConfig(rule="fedavg"),
        "training": TrainingConfig(batch_size=1, steps_per_round=1, patch_size=(8, 16, 16)),
        "networks": {"default": NetworkConfig(options={"channels": [4, 8], "strides": [2], "residual_units": 0})},
        "preprocessing": {"CT": Preprocessing(modality="CT", window=(-100.0, 200.0))},
    }
    return FederationConfig.model_validate({**given, **changes})


def tiny_policy(**limits: int) -> SitePolicy:
    """Return a policy for cohorts of any size that allows a hundred thousand steps, or other ``limits``."""
    given = {"steps_per_round": 100_000, **limits}
    privacy = SitePolicy().privacy.model_copy(update={"minimum_cases": 1})
    return SitePolicy(privacy=privacy, limits=TrainingLimits.model_validate(given))


def write_cohort(folder: Path, seed: int, cases: int = 2) -> Path:
    """Write images of a bright box in noise, 8 x 16 x 16 voxels, and their cohort file; the last one validates."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    listed = []
    for number in range(cases):
        labels = np.zeros((8, 16, 16), np.uint8)
        low = generator.integers(2, 6, size=3)
        labels[low[0] : low[0] + 3, low[1] : low[1] + 7, low[2] : low[2] + 7] = 1
        voxels = np.where(labels > 0, 120.0, 0.0) + generator.normal(0.0, 20.0, labels.shape)
        for name, array in (("image", voxels.astype(np.int16)), ("labels", labels)):
            sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / f"{name}{number}.nii.gz"))
        role = "validation" if number == cases - 1 else "train"
        listed.append(
            {
                "case": f"c{number}",
                "patient": f"p{seed}-{number}",
                "image": f"image{number}.nii.gz",
                "labels": f"labels{number}.nii.gz",
                "role": role,
            }
        )
    file = folder / "cohort.json"
    file.write_text(json.dumps({"modality": "CT", "cases": listed}))
    return file


@contextmanager
def serving(site: SiteFolder, place: Path) -> Iterator[bytes]:
    """Let a site's trainer listen in a thread of this process, at a socket in ``place``; yields its key."""
    key = b"k" * 32
    address = str(place / "t")
    with Listener(address, "AF_UNIX") as listener:
        site.trainer_address.write_text(json.dumps({"address": address, "key": key.hex(), "pid": os.getpid()}))
        server = TrainerServer(site, CohortTrainer(site))
        threading.Thread(target=server.serve, args=(listener, key), daemon=True).start()
        yield key


def family(pid: int = os.getpid()) -> list[psutil.Process]:
    """Return all processes below ``pid`` that have not ended, but for the resource tracker Python may keep itself."""
    return [process for process in psutil.Process(pid).children(recursive=True) if _counts(process)]


def _counts(process: psutil.Process) -> bool:
    try:
        own = any("multiprocessing.resource_tracker" in word for word in process.cmdline())
        return not own and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:  # it has just ended
        return False


def alive(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return those that have not ended; an app's process whose SuperExec ended first takes seconds to see it."""
    return [process for process in processes if process.is_running() and _counts(process)]
