"""Published releases reach the sites over Flower: signed, checked at the site, whole or not at all, journalled."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from tiny_deployment import CONTRACT, tiny_federation, tiny_policy

from FedSegCore.common.errors import BadInputError, FedSegError
from FedSegCore.federation.client_app import answer, make_client_app
from FedSegCore.federation.coordinator.admission import invite
from FedSegCore.federation.coordinator.folder import AdmittedSite, CoordinatorFolder
from FedSegCore.federation.coordinator.releasing import plan_delivery
from FedSegCore.federation.delivery import Delivery, deliver_plan
from FedSegCore.federation.events import Event, EventLog
from FedSegCore.federation.federated_run import StandingClock
from FedSegCore.federation.local_grid import LocalGrid, LocalNode
from FedSegCore.federation.messages import write_query
from FedSegCore.federation.release_messages import (
    ReleaseOffer,
    answer_about_releases,
    read_answer,
    write_offers,
    write_parcel,
)
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.joining import NewSite, join
from FedSegCore.federation.site.journal_entries import Refused, ReleaseReceived
from FedSegCore.federation.site.journal_watch import JournalWatch
from FedSegCore.federation.site.policy import SitePolicy, TrainingLimits, WorkBudget, write_policy
from FedSegCore.federation.site.release_intake import ReleaseIntake
from FedSegCore.federation.site.trainer_client import TrainerClient
from FedSegCore.models.release import Release, open_release, publish_release
from FedSegCore.models.signing import load_or_make_key, public_key_of
from FedSegCore.networks.config import NetworkConfig
from FedSegCore.volumes.preprocessing import Preprocessing

WEIGHTS = {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}


def publish(
    folder: CoordinatorFolder, name: str = "tiny-CT", key: Ed25519PrivateKey | None = None, **weights
) -> Release:
    fields = {
        "name": name,
        "modalities": {"CT": Preprocessing(modality="CT", window=(-100.0, 200.0))},
        "contract": CONTRACT,
        "network": NetworkConfig(options={"channels": [4, 8], "strides": [2], "residual_units": 0}),
        "patch_size": (8, 16, 16),
        "federation": "tiny",
        "rule": "fedavg",
        "rounds": 1,
    }
    signer = key or load_or_make_key(folder.release_key)
    return open_release(publish_release(folder.releases, fields, weights or WEIGHTS, signer))


@pytest.fixture
def member(coordinator: CoordinatorFolder, tmp_path: Path) -> SiteFolder:
    """A site that joined with the coordinator's invitation."""
    invite(coordinator, tmp_path / "invitation.json", tiny_federation(), 10)
    return join(tmp_path / "north", tmp_path / "invitation.json", "north", NewSite(policy=tiny_policy())).folder


def code_of(call, kind=FedSegError) -> str:
    with pytest.raises(kind) as refused:
        call()
    return refused.value.code


def entries(site: SiteFolder, kind: type) -> list:
    assert site.journal.verify().whole
    return [line.entry for line in site.journal.lines() if isinstance(line.entry, kind)]


def node_of(site: SiteFolder) -> LocalNode:
    """A node that answers as a real site's client app process does."""
    return LocalNode(make_client_app(TrainerClient(site), JournalWatch(site.journal), ReleaseIntake(site)))


def deliver(nodes: dict[str, LocalNode], releases: list[Release], **options) -> list[Event]:
    clock, events = StandingClock(), []
    grid = LocalGrid(nodes, clock)
    Delivery(grid, releases, EventLog(None, events.append), clock=clock, sleep=clock.sleep, **options).run()
    return events


def test_a_site_takes_what_its_coordinator_signed_and_only_once(coordinator, member):
    first, second = publish(coordinator), publish(coordinator, "tiny-MR")
    told = deliver({"north": node_of(member)}, [first, second])
    assert [(event.event, event.data["release"]) for event in told] == [
        ("release-delivered", "tiny-CT-v1"),
        ("release-delivered", "tiny-MR-v1"),
    ]
    for release in (first, second):
        taken = open_release(member.releases / release.id, {public_key_of(load_or_make_key(coordinator.release_key))})
        assert taken.trusted
        np.testing.assert_array_equal(taken.weights()["kernel"], WEIGHTS["kernel"])
    assert member.releases.stat().st_mode & 0o077 == 0
    size = (first.path / "weights.safetensors").stat().st_size
    received = ReleaseReceived(weights_sha256=first.card.weights_sha256, bytes=size)
    assert entries(member, ReleaseReceived) == [received, received]
    assert deliver({"north": node_of(member)}, [first, second]) == []  # it has both: nothing is sent again
    newer = publish(coordinator, kernel=WEIGHTS["kernel"] + 1)
    assert [event.data["release"] for event in deliver({"north": node_of(member)}, [newer, second])] == ["tiny-CT-v2"]
    assert sorted(path.name for path in member.releases.iterdir()) == ["tiny-CT-v1", "tiny-CT-v2", "tiny-MR-v1"]


def test_who_is_away_or_hangs_keeps_nobody_waiting(coordinator, member):
    release = publish(coordinator)
    away, silent = node_of(member), node_of(member)
    away.online = False
    nodes = {"away": away, "north": node_of(member)}
    assert [event.event for event in deliver(nodes, [release], sites={"away", "north"})] == ["release-delivered"]
    silent = LocalNode(make_client_app(TrainerClient(member), None, None))
    (told,) = deliver({"old": silent}, [release])
    assert (told.event, told.code) == ("release-declined", "release.not-taken")


def declined(member: SiteFolder, release: Release) -> str:
    """Return why the site does not even ask for the weights, and see that it wrote that down."""
    found = ReleaseIntake(member).consider([ReleaseOffer.of(release)])
    assert not found.wanted
    assert not found.has
    code = found.declined[release.id]
    assert entries(member, Refused)[-1].code == code
    assert code_of(lambda: ReleaseIntake(member).take(ReleaseOffer.of(release), b"weights")) == code
    return code


def test_a_release_of_another_signer_or_beyond_the_policy_is_declined(coordinator, member):
    stranger = publish(coordinator, "strange-CT", Ed25519PrivateKey.generate())
    assert declined(member, stranger) == "release.signer-unknown"
    release = publish(coordinator)
    write_policy(member.policy_file, SitePolicy(limits=TrainingLimits(message_bytes=10)))
    assert declined(member, release) == "policy.message-size"
    write_policy(member.policy_file, SitePolicy(budget=WorkBudget(disk_bytes=1024**2)))
    member.releases.mkdir()
    (member.releases / "much").write_bytes(bytes(1024**2))
    assert declined(member, release) == "policy.disk"
    assert not list(member.releases.glob("*-v*"))


def test_a_site_without_an_invitation_trusts_nobodys_releases(coordinator, site):
    (told,) = deliver({"a": node_of(site)}, [publish(coordinator)])
    assert (told.event, told.code) == ("release-declined", "release.no-key")
    assert entries(site, Refused)[-1].code == "release.no-key"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"id": "tiny-CT-v9"}, "release.misnamed"),
        ({"signature": "0" * 128}, "release.signature-wrong"),
        ({"card": "{}"}, "release.card-invalid"),
        ({"public_key": "no key"}, "release.file-unusable"),
    ],
)
def test_a_card_that_was_changed_on_the_way_is_declined(change, code, coordinator, member):
    offer = ReleaseOffer.of(publish(coordinator)).model_copy(update=change)
    assert ReleaseIntake(member).consider([offer]).declined == {offer.id: code}


def test_weights_that_are_not_those_of_the_card_leave_no_trace(coordinator, member):
    release = publish(coordinator)
    other = (
        publish(coordinator, "other", kernel=np.ones((2, 3), np.float32)).path / "weights.safetensors"
    ).read_bytes()
    assert code_of(lambda: ReleaseIntake(member).take(ReleaseOffer.of(release), other)) == "release.weights-changed"
    assert list(member.releases.iterdir()) == []
    assert entries(member, ReleaseReceived) == []


def test_weights_longer_than_was_said_do_not_get_round_the_room_for_them(coordinator, member):
    """The coordinator can sign any card; what it says of the weights' size is what the room is counted by."""
    release = publish(coordinator)
    weights = (release.path / "weights.safetensors").read_bytes()
    for said in (1, len(weights) - 1, len(weights) + 1):
        offer = ReleaseOffer.of(release).model_copy(update={"weights_bytes": said})
        assert code_of(lambda offer=offer: ReleaseIntake(member).take(offer, weights)) == "release.other-size"
    assert not member.releases.exists()


def test_what_was_arriving_when_its_process_was_killed_is_deleted_later(coordinator, member):
    member.releases.mkdir()
    old, young, own = (member.releases / name for name in (".arriving-a", ".importing-b", "mine"))
    for folder in (old, young, own):
        folder.mkdir()
        (folder / "weights.safetensors").write_bytes(bytes(10))
    for folder in (old, own):
        os.utime(folder, (0, 0))
    deliver({"north": node_of(member)}, [publish(coordinator)])
    assert sorted(path.name for path in member.releases.iterdir()) == [".importing-b", "mine", "tiny-CT-v1"]


def test_an_answer_to_an_offer_is_short():
    many = {f"r-v{number}": "release.none" for number in range(1, 40)}
    content = RecordDict({"releases": ConfigRecord({"json": json.dumps({"declined": many})})})
    assert code_of(lambda: read_answer(content)) == "reply.invalid"


def test_another_release_of_that_name_does_not_replace_the_first(coordinator, member, tmp_path):
    release = publish(coordinator)
    deliver({"north": node_of(member)}, [release])
    twin = CoordinatorFolder(tmp_path / "twin")  # the same key made another version 1
    twin.path.mkdir()
    load_or_make_key(twin.release_key)
    twin.release_key.write_bytes(coordinator.release_key.read_bytes())
    (told,) = deliver({"north": node_of(member)}, [publish(twin, kernel=WEIGHTS["kernel"] + 1)])
    assert (told.event, told.code) == ("release-declined", "import.exists")
    np.testing.assert_array_equal(open_release(member.releases / release.id).weights()["kernel"], WEIGHTS["kernel"])


def test_what_is_no_parcel_is_refused_by_a_code(coordinator, member):
    release = publish(coordinator)
    intake = ReleaseIntake(member)
    two = RecordDict({**write_offers([release, release]), "weights": write_parcel(release)["weights"]})
    assert code_of(lambda: answer_about_releases(two, intake), BadInputError) == "request.invalid"
    assert code_of(lambda: answer_about_releases(write_query(), intake), BadInputError) == "request.incomplete"
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    context = Context(run_id=1, node_id=1, node_config={"site": "north"}, state=RecordDict(), run_config={})
    # as an order to train it is none: nothing but a query brings releases
    order = Message(write_parcel(release), 1, MessageType.TRAIN)
    content = answer(order, context, TrainerClient(member), None, intake).content
    assert code_of(lambda: read_answer(content)) == "request.incomplete"
    assert not member.releases.exists()


def test_the_plan_names_the_newest_of_every_name_and_the_admitted_sites(coordinator, tmp_path):
    run = coordinator.runs / "first"
    assert code_of(lambda: plan_delivery(coordinator, "first")) == "federation.no-run"
    run.mkdir()
    assert code_of(lambda: plan_delivery(coordinator, "first")) == "release.none"
    publish(coordinator)
    publish(coordinator)
    publish(coordinator, "tiny-MR")
    publish(coordinator, "strange-CT", Ed25519PrivateKey.generate())
    coordinator.keep_sites((AdmittedSite(name="north", node_id=3, fingerprint="f"),))
    plan = plan_delivery(coordinator, "first")
    assert (set(plan.ids), plan.sites) == ({"tiny-CT-v2", "tiny-MR-v1"}, ("north",))
    (run / "delivery.json").write_text("{}")
    clock = StandingClock()
    assert code_of(lambda: deliver_plan(LocalGrid({}, clock), run, EventLog(None))) == "run.config"
