"""A site's life with a real SuperLink: invited, admitted, connected also after a renewal, expelled, back again."""

import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny_deployment import tiny_federation, tiny_policy, write_cohort

from FedSegCore.common.errors import BadInputError
from FedSegCore.common.progress import Progress
from FedSegCore.federation.coordinator import certificates
from FedSegCore.federation.coordinator.admission import add_request, admit, expel, invite, pending
from FedSegCore.federation.coordinator.folder import CoordinatorFolder, CoordinatorSettings
from FedSegCore.federation.coordinator.renewal import renew
from FedSegCore.federation.coordinator.runs import ControlClient
from FedSegCore.federation.coordinator.service import CoordinatorProcesses
from FedSegCore.federation.coordinator.superlink import listening_on_all_versions
from FedSegCore.federation.process_group import free_ports, stop_trees
from FedSegCore.federation.site.joining import Joined, NewSite, join
from FedSegCore.federation.site.node import SiteProcesses
from FedSegCore.federation.site.status import ProcessesState

Wait = Callable[..., None]


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


HOST = "::1" if has_ipv6() else "127.0.0.1"


class Enrolled:
    """A running coordinator, and a site that its test starts and stops."""

    def __init__(self, root: Path) -> None:
        fleet, control = free_ports(2)
        settings = CoordinatorSettings(
            federation="tiny", hosts=(HOST,), fleet_host=HOST, fleet_port=fleet, control_port=control
        )
        self.root = root
        self.folder = CoordinatorFolder.create(root / "coordinator", settings)
        self.processes = CoordinatorProcesses(self.folder)
        self.site: SiteProcesses | None = None

    def tick(self) -> None:
        """Keep everything alive."""
        self.processes.tick()
        if self.site is not None:
            self.site.tick()

    def restart(self, joined: Joined) -> None:
        """Start the site, after its end where it runs."""
        if self.site is not None:
            stop_trees(self.site.processes())
        self.site = SiteProcesses(joined.folder)

    def join(self, name: str, **more: object) -> Joined:
        """Join with a new invitation."""
        invite(self.folder, self.root / "invitation.json", tiny_federation(), 1)
        new = NewSite(self.root / "images" / "cohort.json", tiny_policy())
        again = (self.root / name).exists()
        return join(self.root / name, self.root / "invitation.json", name, None if again else new, **more)

    def stop(self) -> None:
        """Leave no process behind."""
        if self.site is not None:
            stop_trees(self.site.processes())
        self.processes.close()


@pytest.fixture
def enrolled(tmp_path: Path) -> Iterator[Enrolled]:
    write_cohort(tmp_path / "images", seed=1)
    running = Enrolled(tmp_path)
    try:
        running.processes.start()
        yield running
    finally:
        running.stop()


def shown_certificate(folder: CoordinatorFolder, host: str, port: int, name: str) -> bytes:
    """Return the certificate that a listener shows to who trusts the authority and calls it ``name``, or nothing."""
    trusted = ssl.create_default_context(cafile=str(folder.authority_certificate))
    try:
        with (
            socket.create_connection((host, port), timeout=5.0) as connection,
            trusted.wrap_socket(connection, server_hostname=name) as secure,
        ):
            return secure.getpeercert(binary_form=True) or b""
    except ssl.SSLCertVerificationError:
        return b""


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_site_is_admitted_connects_outlives_a_renewal_and_is_expelled(
    enrolled: Enrolled, wait_until: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    # whether a refusal is for good shows after a minute, which no test waits for
    monkeypatch.setattr("FedSegCore.federation.site.node.SHUT_OUT_S", 0.0)
    folder = enrolled.folder
    settings = folder.settings()
    joined = enrolled.join("north")
    with ControlClient(folder) as control:
        control.wait_until_up(Progress())
        add_request(folder, joined.request_file)
        site = admit(folder, control, "north", joined.fingerprint.lower())
        assert folder.sites() == (site,)
        assert pending(folder) == ()
        with pytest.raises(BadInputError, match=r"request\.admitted"):
            admit(folder, control, str(joined.request_file), joined.fingerprint)
        # as if the command had been killed between SuperLink's answer and its own list
        folder.keep_sites(())
        assert admit(folder, control, str(joined.request_file), joined.fingerprint) == site

        enrolled.restart(joined)
        wait_until(lambda: site.node_id in control.online(), 60.0, enrolled)
        listeners = ((HOST, settings.fleet_port), ("127.0.0.1", settings.control_port))
        assert [shown_certificate(folder, *place, "renewed.example") for place in listeners] == [b"", b""]
        renew(folder, ["renewed.example"])
        written = ssl.PEM_cert_to_DER_cert(folder.server_certificate.read_text())
        for place in listeners:
            wait_until(lambda at=place: shown_certificate(folder, *at, "renewed.example") == written, 10.0, enrolled)
        # enrolled before the renewal, and connected anew after it: also where it was forgotten until all had expired
        with monkeypatch.context() as patched:
            patched.setattr(certificates, "_SERVER_DAYS", -0.5)
            renew(folder)
        wait_until(lambda: shown_certificate(folder, *listeners[0], "renewed.example") == b"", 10.0, enrolled)
        enrolled.restart(joined)
        wait_until(lambda: "site.wrong-certificate" in joined.folder.status_file.read_text(), 60.0, enrolled)
        renew(folder)
        wait_until(
            lambda: enrolled.site is not None and enrolled.site.state is ProcessesState.CONNECTED, 60.0, enrolled
        )
        assert site.node_id in control.online()

        assert expel(folder, control, "north") == site
        wait_until(lambda: enrolled.site is not None and enrolled.site.state is ProcessesState.ENDED, 30.0, enrolled)
        assert enrolled.site is not None
        assert enrolled.site.error is not None
        assert enrolled.site.error.code == "site.expelled"
        assert (folder.sites(), control.online()) == ((), frozenset())
        with pytest.raises(BadInputError, match=r"coordinator\.key-refused"):
            admit(folder, control, str(joined.request_file), joined.fingerprint)
        folder.keep_sites((site,))
        expel(folder, control, "north")
        assert folder.sites() == ()

        back = enrolled.join("north", new_key=True)
        again = admit(folder, control, str(back.request_file), back.fingerprint)
        assert again.node_id != site.node_id
        assert folder.sites() == (again,)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_after_a_restore_without_the_database_sites_are_admitted_again(enrolled: Enrolled, wait_until: Wait) -> None:
    folder, joined = enrolled.folder, enrolled.join("north")
    with ControlClient(folder) as control:
        control.wait_until_up(Progress())
        before = admit(folder, control, str(joined.request_file), joined.fingerprint)
    enrolled.processes.close()
    for file in folder.path.glob("superlink.db*"):
        file.unlink()
    enrolled.processes = CoordinatorProcesses(folder)
    enrolled.processes.start()
    with ControlClient(folder) as control:
        control.wait_until_up(Progress())
        assert (folder.sites(), control.knows(before)) == ((before,), False)
        with pytest.raises(BadInputError, match=r"admission\.fingerprint"):
            admit(folder, control, str(joined.request_file), "0" * 20)
        again = admit(folder, control, str(joined.request_file), joined.fingerprint)
        assert (folder.sites(), again.name) == ((again,), "north")
        with pytest.raises(BadInputError, match=r"request\.admitted"):
            admit(folder, control, str(joined.request_file), joined.fingerprint)
        enrolled.restart(joined)
        wait_until(lambda: again.node_id in control.online(), 60.0, enrolled)


@pytest.mark.skipif(HOST != "::1" or not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_one_listener_takes_ipv6_and_ipv4() -> None:
    (port,) = free_ports(1)
    with listening_on_all_versions("::", port) as sockets:
        assert sockets is not None
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port), timeout=5.0).close()
    with listening_on_all_versions("127.0.0.1", port) as sockets:
        assert sockets is None
