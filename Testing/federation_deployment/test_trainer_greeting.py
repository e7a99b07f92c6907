"""Nobody waits for ever at a site's trainer: not for one that accepts nobody, not behind a caller who says nothing."""

import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tiny_deployment import serving

from FedSegCore.common.errors import CannotDoHereError
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.trainer_client import TrainerClient

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the tests talk to a Unix socket")


@contextmanager
def deaf_trainer(site: SiteFolder, place: Path, backlog: int) -> Iterator[None]:
    """A socket that the system lets callers connect to, and where nobody ever accepts them."""
    address = str(place / "t")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(backlog)
        site.trainer_address.write_text(json.dumps({"address": address, "key": "00" * 32, "pid": os.getpid()}))
        yield


def raw_call(site: SiteFolder) -> socket.socket:
    caller = socket.socket(socket.AF_UNIX)
    caller.connect(json.loads(site.trainer_address.read_text())["address"])
    return caller


@pytest.mark.parametrize("full", [False, True])
def test_a_trainer_that_accepts_nobody_is_an_error_in_time(
    site: SiteFolder, tmp_path_factory: pytest.TempPathFactory, full: bool
) -> None:
    with deaf_trainer(site, tmp_path_factory.mktemp("s"), backlog=0 if full else 5):
        first = raw_call(site)
        began = time.monotonic()
        with first, pytest.raises(CannotDoHereError) as error:
            TrainerClient(site, start_limit_s=0.6).describe()
        assert error.value.code == "trainer.not-running"
        assert 0.6 <= time.monotonic() - began < 5.0


def test_a_trainer_that_speaks_nonsense_is_an_error(site: SiteFolder, tmp_path_factory: pytest.TempPathFactory) -> None:
    address = str(tmp_path_factory.mktemp("s") / "t")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        site.trainer_address.write_text(json.dumps({"address": address, "key": "00" * 32, "pid": os.getpid()}))

        def answer() -> None:
            with listening.accept()[0] as called:
                called.sendall(struct.pack("!i", 5) + b"hello")

        answering = threading.Thread(target=answer)
        answering.start()
        with pytest.raises(CannotDoHereError, match="not-running"):
            TrainerClient(site, start_limit_s=0.5).describe()
        answering.join()


@pytest.mark.parametrize(
    "said",
    [b"", struct.pack("!i", 2**20), struct.pack("!i", 100) + b"short", struct.pack("!i", 5) + b"hello"],
    ids=["nothing", "too long", "half a message", "no answer"],
)
def test_a_caller_without_the_key_keeps_nobody_waiting(served: tuple[SiteFolder, bytes], said: bytes) -> None:
    site, _ = served
    caller = raw_call(site)
    try:
        caller.sendall(said)
        if said:
            caller.shutdown(socket.SHUT_WR)
        began = time.monotonic()
        assert TrainerClient(site, start_limit_s=5.0).describe().modality == "CT"
        assert time.monotonic() - began < 8.0
    finally:
        caller.close()


def test_a_trainer_whose_progress_cannot_be_written_serves(
    site: SiteFolder, tmp_path_factory: pytest.TempPathFactory
) -> None:
    site.progress.mkdir(parents=True)
    with serving(site, tmp_path_factory.mktemp("s")):
        assert TrainerClient(site, start_limit_s=5.0).describe().modality == "CT"
