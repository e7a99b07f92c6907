"""The requests that take time: one at a time on a work thread, cancelled at once while they wait."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from FedSegCore.common.errors import CancelledError, CannotDoHereError, FedSegError
from FedSegCore.common.files import is_disk_full
from FedSegCore.common.progress import Progress
from FedSegCore.worker.messages import Message, RequestId, encode, error_message, notification, result_message

LOGGER = logging.getLogger(__name__)

Work = Callable[[Progress], Any]
REPORT_EVERY_SECONDS = 0.1


@dataclass
class Job:
    """One request being worked on or waiting.

    Attributes:
        request_id: of the request it answers.
        work: what to do; gets the progress to report to.
        cancelled: set when the client no longer wants it.
    """

    request_id: RequestId
    work: Work
    cancelled: threading.Event = field(default_factory=threading.Event)


class ProgressReporter:
    """Turns fractions into ``$/progress`` notifications, at most ten a second, with an estimate of what remains."""

    def __init__(
        self, request_id: RequestId, send: Callable[[Message], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._request_id = request_id
        self._send = send
        self._clock = clock
        self._start = clock()
        self._last_time = -1.0
        self._last_stage = ""

    def __call__(self, fraction: float, stage: str) -> None:
        """Send the fraction (0..1) and the stage in words, unless the last one was sent a moment ago."""
        now = self._clock()
        if stage == self._last_stage and now - self._last_time < REPORT_EVERY_SECONDS and fraction < 1.0:
            return
        self._last_time, self._last_stage = now, stage
        params = {
            "id": self._request_id,
            "fraction": round(fraction, 4),
            "stage": stage,
            "eta_seconds": self._remaining(fraction, now - self._start),
        }
        self._send(notification("$/progress", params))

    @staticmethod
    def _remaining(fraction: float, elapsed: float) -> float | None:
        if fraction < 0.05 or elapsed < 1.0:
            return None  # too early to say anything that would hold
        return round(elapsed * (1.0 - fraction) / fraction, 1)


class JobQueue:
    """Runs jobs one after the other on its own thread and answers each exactly once.

    Args:
        send: sends a message to the client; called from the work thread and from the caller's.
        when_idle: run once on the work thread when it first has had nothing to do for a moment.
    """

    def __init__(self, send: Callable[[Message], None], when_idle: Callable[[], None] | None = None) -> None:
        self._send = send
        self._when_idle = when_idle
        self._waiting: queue.Queue[Job | None] = queue.Queue()
        self._open: dict[RequestId, Job] = {}
        self._running: Job | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="work", daemon=True)
        self._thread.start()

    def add(self, request_id: RequestId, work: Work) -> bool:
        """Queue a job; False if a job of this id is still open."""
        job = Job(request_id, work)
        with self._lock:
            if request_id in self._open:
                return False
            self._open[request_id] = job
        self._waiting.put(job)
        return True

    def cancel(self, request_id: RequestId) -> None:
        """Cancel the job of this id; unknown ids are ignored, since its answer may be on its way.

        A job that waits is answered here and now; the running one answers at its next report of progress.
        """
        with self._lock:
            job = self._open.get(request_id)
            if job is None:
                return
            job.cancelled.set()
            if job is self._running:
                return
            del self._open[request_id]
        self._send(error_message(request_id, CancelledError()))

    def close(self, timeout_s: float) -> None:
        """Cancel everything and wait at most ``timeout_s`` seconds for the work thread to end."""
        with self._lock:
            jobs = list(self._open.values())
        for job in jobs:
            job.cancelled.set()
        self._waiting.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            try:
                job = self._waiting.get(timeout=0.5 if self._when_idle else None)
            except queue.Empty:
                self._use_idle_time()
                continue
            if job is None:
                return
            with self._lock:
                self._running = job if self._open.get(job.request_id) is job else None
            if self._running is not None:
                self._answer(job)

    def _use_idle_time(self) -> None:
        task, self._when_idle = self._when_idle, None
        try:
            if task is not None:
                task()
        except Exception:
            # What failed in idle time fails again, and is told, when it is really needed.
            LOGGER.exception("preparation failed")

    def _answer(self, job: Job) -> None:
        progress = Progress(ProgressReporter(job.request_id, self._send), job.cancelled)
        try:
            message = result_message(job.request_id, job.work(progress))
            encode(message)  # a result that is not JSON is an error like any other
        except FedSegError as error:
            message = error_message(job.request_id, error)
        except Exception as error:
            LOGGER.exception("a request failed unexpectedly")
            message = error_message(job.request_id, as_coded(error))
        with self._lock:
            del self._open[job.request_id]
            self._running = None
        self._send(message)


def as_coded(error: Exception) -> FedSegError:
    """Return an error of the machine or of ours as one with code, cause and remedy."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return CannotDoHereError(
            "memory.full", "There is not enough memory for this image.", "Close other programs, or choose the CPU."
        )
    if isinstance(error, ImportError):
        return CannotDoHereError(
            "runtime.incomplete",
            f"FedSegSlicer's runtime lacks a part it needs ({error.name or 'unknown'}).",
            "Install the runtime again.",
        )
    if isinstance(error, OSError) and is_disk_full(error):
        return CannotDoHereError("disk.full", "The disk is full.", "Free some space and try again.")
    return FedSegError(
        "worker.failed",
        f"Something went wrong that should not ({type(error).__name__}).",
        "Try again; if it happens again, report it with the worker's log.",
    )
