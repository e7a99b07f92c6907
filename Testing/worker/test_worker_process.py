"""The real worker process: its streams, its end, its speed at the start."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest


@pytest.fixture
def worker():
    process = subprocess.Popen(
        [sys.executable, "-m", "FedSegCore.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate(timeout=10)


def ask(process, method, request_id=1, **params):
    line = json.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})
    process.stdin.write(line.encode() + b"\n")
    process.stdin.flush()


def test_initialize_answers_before_torch_could_be_imported(worker):
    ask(worker, "initialize")
    reply = json.loads(worker.stdout.readline())
    assert reply["result"]["version"]
    loaded = {map_.path for map_ in psutil.Process(worker.pid).memory_maps()} if sys.platform == "linux" else set()
    assert not any("libtorch" in path for path in loaded)


def test_it_ends_when_asked_and_when_its_input_closes(worker):
    ask(worker, "shutdown")
    assert json.loads(worker.stdout.readline())["result"] is None
    assert worker.wait(timeout=10) == 0


def test_it_ends_when_its_input_closes(worker):
    ask(worker, "initialize")
    worker.stdout.readline()
    worker.stdin.close()
    assert worker.wait(timeout=10) == 0
    worker.stdin = None


@pytest.mark.skipif(os.name == "nt", reason="keeps a pipe open in a way only POSIX has")
def test_it_ends_when_its_parent_dies_with_the_pipe_still_open():
    """The parent is killed while another process (this one) holds the worker's input open."""
    read_end, write_end = os.pipe()
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-m', 'FedSegCore.worker'], stdin=int(sys.argv[1]))\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(read_end)], pass_fds=[read_end], stdout=subprocess.PIPE
    )
    try:
        worker = psutil.Process(int(parent.stdout.readline()))
        os.write(write_end, b'{"jsonrpc":"2.0","id":1,"method":"initialize"}\n')
        assert b"protocol" in parent.stdout.readline()
        parent.send_signal(signal.SIGKILL)
        parent.wait(10)
        end = time.monotonic() + 10
        while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE and time.monotonic() < end:
            time.sleep(0.05)
        assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    finally:
        parent.kill()
        parent.communicate()
        os.close(read_end)
        os.close(write_end)


def test_what_libraries_print_goes_to_standard_error():
    """From Python's print as from C's file descriptor 1; nothing of it reaches the channel."""
    script = (
        "import os, sys\n"
        "from FedSegCore.worker.channel import LineChannel\n"
        "channel = LineChannel.over_standard_streams()\n"
        "print('from python', flush=True)\n"
        "os.write(1, b'from C\\n')\n"
        "channel.send({'jsonrpc': '2.0', 'id': 1, 'result': sys.stdin.read()})\n"
    )
    done = subprocess.run([sys.executable, "-c", script], input=b"for the channel\n", capture_output=True, timeout=60)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [{"jsonrpc": "2.0", "id": 1, "result": ""}]
    assert b"from python" in done.stderr
    assert b"from C" in done.stderr
