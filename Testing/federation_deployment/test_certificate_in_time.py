"""The server's certificate over years and wrong clocks: renewed by itself, and no site is lost where it was not."""

import datetime as dt

import pytest

from FedSegCore.common.errors import BadInputError
from FedSegCore.federation.coordinator import certificates
from FedSegCore.federation.coordinator.certificates import certificate_end, is_due
from FedSegCore.federation.coordinator.folder import CoordinatorFolder
from FedSegCore.federation.coordinator.monitoring import Monitor
from FedSegCore.federation.coordinator.renewal import renew, renew_in_time
from FedSegCore.federation.coordinator.status import ServerView
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.node import SiteProcesses
from FedSegCore.federation.site.state import site_state
from FedSegCore.federation.site.status import ProcessesState


def due(folder: CoordinatorFolder, moment: dt.datetime) -> bool:
    return is_due(folder.server_certificate, folder.authority_certificate, moment)


def expired(folder: CoordinatorFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the coordinator a certificate that expired half a day ago."""
    with monkeypatch.context() as patched:
        patched.setattr(certificates, "_SERVER_DAYS", -0.5)
        renew(folder)


def test_a_certificate_is_due_in_its_last_month_or_where_it_is_not_valid_yet(coordinator: CoordinatorFolder) -> None:
    end, day = certificate_end(coordinator.server_certificate), dt.timedelta(days=1)
    assert not due(coordinator, end - 31 * day)
    assert due(coordinator, end - 29 * day)
    assert due(coordinator, end + 400 * day)
    # made by a clock that was set years ahead, and is right again
    assert due(coordinator, end - 900 * day)


def test_a_certificate_that_ends_with_its_authority_is_not_renewed_again_and_again(
    coordinator: CoordinatorFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "_SERVER_DAYS", 100_000)
    renew(coordinator)
    end = certificate_end(coordinator.server_certificate)
    assert end == certificate_end(coordinator.authority_certificate)
    assert not due(coordinator, end - dt.timedelta(days=1))


def test_a_serving_coordinator_renews_by_itself(
    coordinator: CoordinatorFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monitor = Monitor(coordinator, ask=lambda _: ServerView(True), clock=lambda: clock[0])
    monitor.tick()
    before = coordinator.server_certificate.read_bytes()
    clock[0] += 4000.0
    monitor.tick()
    assert coordinator.server_certificate.read_bytes() == before
    expired(coordinator, monkeypatch)
    clock[0] += 61.0  # also soon: a clock that is set right can make it so at any moment
    monitor.tick()
    assert certificate_end(coordinator.server_certificate) > dt.datetime.now(dt.UTC) + dt.timedelta(days=800)


def test_an_authority_that_is_locked_away_ends_nothing(
    coordinator: CoordinatorFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expired(coordinator, monkeypatch)
    (coordinator.path / "ca" / "ca.key").unlink()
    assert not renew_in_time(coordinator)
    assert "cannot be renewed" in caplog.text
    with pytest.raises(BadInputError, match=r"coordinator\.authority"):
        renew(coordinator)


def test_a_site_outlives_a_certificate_that_it_does_not_trust(site: SiteFolder) -> None:
    """Expired, seen through a guest network's portal, or with a clock that is not set yet: it may be right tomorrow."""
    processes = SiteProcesses(site)
    processes._recent = ["[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired"]
    told = [processes._explain_end(1) for _ in range(3)]
    assert [len(words) for words in told] == [1, 0, 0]
    assert (processes.state, processes.error) == (ProcessesState.RETRYING, None)
    processes._tell_status()
    assert site_state(site).code == "site.wrong-certificate"
    processes._note_connection(["connected to the federation"])
    processes._tell_status()
    assert (processes.state, site_state(site).code) == (ProcessesState.CONNECTED, "")
