"""``site check``: what the site's own computer must have, each missing for real; and the command."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from FedSegCore import __version__
from FedSegCore.common.errors import CancelledError
from FedSegCore.common.progress import Progress
from FedSegCore.federation.bundle import bundle_digest, thin_bundle
from FedSegCore.federation.coordinator.folder import CoordinatorFolder
from FedSegCore.federation.invitation import Invitation, write_invitation
from FedSegCore.federation.process_group import free_ports
from FedSegCore.federation.site.approval import approve
from FedSegCore.federation.site.control import change
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.journal_entries import OrderReceived
from FedSegCore.federation.site.policy import SitePolicy, write_policy
from FedSegCore.federation.site.preflight import Finding, first_failure, preflight
from FedSegCore.federation.site.preflight_machine import Needs
from FedSegCore.federation.software import is_newer
from FedSegCore.models.signing import load_or_make_key, public_key_of

EASY = Needs(disk_bytes=1, memory_bytes=1, timeout_s=1.0)


def check(site: SiteFolder, needs: Needs = EASY) -> dict[str, Finding]:
    return {found.layer: found for found in preflight(site, Progress(), needs)}


@pytest.fixture
def own_layers(site: SiteFolder) -> SiteFolder:
    """Return a site whose network fails at once, so that only its own computer is looked at."""
    (port,) = free_ports(1)
    settings = site.settings().model_copy(update={"coordinator": f"127.0.0.1:{port}"})
    site.settings_file.write_text(settings.model_dump_json())
    return site


def test_the_computers_own_layers(own_layers: SiteFolder) -> None:
    site = own_layers
    found = check(site)
    for layer in ("flower", "app", "policy", "budget", "journal", "disk", "memory", "device", "cohort", "last message"):
        assert found[layer].ok, found[layer]
    assert "CT" in found["cohort"].words
    assert "No message" in found["last message"].words
    greedy = check(site, Needs(disk_bytes=2**60, memory_bytes=2**60, timeout_s=1.0))
    assert (greedy["disk"].code, greedy["memory"].code) == ("check.disk", "check.memory")
    site.journal.append(
        OrderReceived(round_number=1, rounds=2, modality="CT", tensors=1, bytes=4, steps=1, epochs=1, batch_size=1)
    )
    (line,) = [line for line in site.journal.lines() if line.entry.kind == "order-received"]
    assert line.time[:10] in check(site)["last message"].words


def test_what_else_can_be_wrong_at_the_site(own_layers: SiteFolder) -> None:
    site = own_layers
    write_policy(site.policy_file, SitePolicy())
    assert check(site)["cohort"].code == "check.too-few-patients"
    next(site.cohort.parent.glob("image0*")).unlink()
    assert check(site)["cohort"].code == "check.cohort-files"
    site.cohort.write_text("{}")
    assert check(site)["cohort"].code == "cohort.invalid"
    site.policy_file.write_text("{")
    assert check(site)["policy"].code == "policy.invalid"
    (file,) = (site.path / "journal").glob("*.jsonl")
    file.write_bytes(file.read_bytes()[:-3])
    assert check(site)["journal"].code == "journal.broken"


def joined_with(site: SiteFolder, coordinator: CoordinatorFolder, **told: object) -> None:
    """Keep an invitation of the coordinator at the site as the one that it joined with."""
    now = datetime.now(UTC)
    key = load_or_make_key(coordinator.identity_key)
    invitation = Invitation(
        id="0" * 32,
        federation="tiny",
        addresses=("127.0.0.1:9443",),
        authority_certificate=coordinator.authority_certificate.read_text(),
        flower="1.41",
        software_version="9.9.9",
        app_sha256=bundle_digest(thin_bundle()),
        coordinator_public_key=public_key_of(key).hex(),
        release_public_key="1" * 64,
        made=now - timedelta(days=20),
        expires=now - timedelta(days=10),
    )
    write_invitation(invitation.model_copy(update=told), key, site.invitation_file)


def test_the_invitation_says_which_software_the_federation_runs(
    own_layers: SiteFolder, coordinator: CoordinatorFolder
) -> None:
    site = own_layers
    joined_with(site, coordinator)
    found = check(site)
    # it served to join; that it has expired since does not matter
    assert found["flower"].ok
    assert "as the invitation says" in found["app"].words
    joined_with(site, coordinator, app_sha256="a" * 64, flower="1.42")
    found = check(site)
    assert (found["flower"].code, found["app"].code) == ("check.other-flower", "check.app")
    assert "9.9.9" in found["flower"].remedy
    approve(site, "a" * 64)
    assert check(site)["app"].ok


def test_a_site_that_was_upgraded_since_it_joined_is_not_told_to_go_back(
    own_layers: SiteFolder, coordinator: CoordinatorFolder
) -> None:
    joined_with(own_layers, coordinator, app_sha256="a" * 64, flower="1.40", software_version="0.0.10")
    found = check(own_layers)
    for layer in ("flower", "app"):
        assert found[layer].ok
        assert "of the older version 0.0.10: this is right if the coordinator has been upgraded" in found[layer].words
    # of the same version, yet another app: somebody changed it
    joined_with(own_layers, coordinator, app_sha256="a" * 64, software_version=__version__)
    assert check(own_layers)["app"].code == "check.app"


@pytest.mark.parametrize(
    ("version", "other", "newer"),
    [("0.1.1", "0.1.0", True), ("0.1.0", "0.1.0", False), ("0.10", "0.9.3", True), ("0.1.0", "1.0rc1", False)],
)
def test_versions_are_compared_by_their_numbers(version: str, other: str, newer: bool) -> None:
    assert is_newer(version, other) is newer


def test_a_graphics_card_that_is_asked_for_and_absent(own_layers: SiteFolder) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a graphics card here")
    settings = own_layers.settings().model_copy(update={"device": "cuda"})
    own_layers.settings_file.write_text(settings.model_dump_json())
    assert check(own_layers)["device"].code == "device.unavailable"
    # what was said since the site was set up holds, as it does for the trainer
    change(own_layers, device="cpu")
    assert check(own_layers)["device"].ok
    own_layers.settings_file.write_text(settings.model_copy(update={"device": "cpu"}).model_dump_json())
    change(own_layers, device="cuda")
    assert check(own_layers)["device"].code == "device.unavailable"


def test_a_check_can_be_cancelled(own_layers: SiteFolder) -> None:
    progress = Progress()
    progress.cancel()
    with pytest.raises(CancelledError):
        preflight(own_layers, progress, EASY)


def test_the_command_shows_the_layers_and_the_cure(
    own_layers: SiteFolder, fedseg: Callable[..., SimpleNamespace]
) -> None:
    done = fedseg("site", "check", own_layers.path, "--json", "--disk-gib", "0", "--memory-gib", "0")
    assert done.code == 4
    assert "check.port-closed" in done.err
    assert "not tried" in done.err
    told = json.loads(done.out.splitlines()[-1])["findings"]
    untried = [entry["layer"] for entry in told if not entry["tried"]]
    assert untried == ["encryption", "clock", "authority", "certificate", "admission"]
    failed = first_failure(tuple(Finding(**entry) for entry in told))
    assert failed is not None
    assert failed.layer == "port"
