"""A cable of a fault's network that is pulled is really pulled: tried by a process that entered a site's network."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fault_networks import Networks, networks_allowed
from fault_world import children_with_a_hook

_ASK = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=1.0) as line:
        print(line.getsockname()[0])
except TimeoutError:
    print("nothing comes back")
except OSError:
    print("no network")
"""


@pytest.fixture
def networks() -> Iterator[Networks]:
    if not networks_allowed():
        pytest.skip("network namespaces need root, Linux and iproute2")
    with closing(Networks(["a", "b"])) as made:
        yield made


@pytest.fixture
def port(networks: Networks) -> Iterator[int]:
    """Somebody who takes connections where the coordinator would."""
    with socket.create_server((networks.address, 0)) as listening:

        def accept() -> None:
            try:
                while True:
                    listening.accept()[0].close()
            except OSError:
                return

        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


def test_a_site_meets_what_befalls_its_own_network(networks: Networks, port: int, tmp_path: Path) -> None:
    def asked(site: str) -> str:
        home = tmp_path / site
        home.mkdir(exist_ok=True)
        (home / "network").write_text(networks.namespace(site))
        command = [sys.executable, "-c", _ASK, networks.address, str(port)]
        environment = os.environ | {"FLWR_HOME": str(home)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60).stdout.strip()

    with children_with_a_hook():
        mine, other = asked("a"), asked("b")
        assert mine != other
        assert {mine.rpartition(".")[0], other.rpartition(".")[0]} == {networks.address[:-2]}
        networks.unplug("a")
        assert (asked("a"), asked("b")) == ("no network", other)
        networks.mend()
        assert asked("a") == mine
        networks.silence()
        assert asked("b") == "nothing comes back"
        networks.mend()
        networks.change_address("b")
        changed = asked("b")
        assert changed not in (mine, other, "nothing comes back", "no network")
        networks.cut()
        assert {asked("a"), asked("b")} == {"no network"}
        networks.mend()
        assert (asked("a"), asked("b")) == (mine, changed)
    assert "FEDSEG_FAULTS" not in os.environ
