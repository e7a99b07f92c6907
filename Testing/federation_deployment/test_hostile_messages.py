"""Messages of a coordinator that means harm, to the site's real client app and trainer: each is refused by a code.

None of them trains, opens an image, writes a file or tells the server anything but the code; each is in the journal.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MessageType, RecordDict
from gated_site import ask, entries, only_a_code, order, train
from safetensors import numpy as safetensors
from tiny_deployment import serving, tiny_policy, write_cohort

from FedSegCore.federation.site.folder import SiteFolder, SiteSettings
from FedSegCore.federation.site.journal_entries import Refused
from FedSegCore.federation.site.policy import write_policy

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the test listens on a Unix socket")

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteFolder]:
    """Return a site whose trainer listens in a thread; one for all attacks, which must not leave anything behind."""
    root = tmp_path_factory.mktemp("attacked")
    authority = root / "ca.crt"
    authority.write_text("no connection is made here")
    settings = SiteSettings(
        name="a", coordinator="127.0.0.1:9443", cohort=write_cohort(root / "images", 1), device="cpu"
    )
    site = SiteFolder.create(root / "site", settings, authority, tiny_policy(steps_per_round=5_000))
    with serving(site, tmp_path_factory.mktemp("s")):
        yield site


def changed(change: Change) -> RecordDict:
    """Return an honest order with something else in it."""
    honest = order()
    told = json.loads(str(honest["order"]["json"]))
    change(told)
    return RecordDict({"model": honest["model"], "order": ConfigRecord({"json": json.dumps(told)})})


def set_in(*place: str, value: object) -> Change:
    """Return what sets the entry at ``place``."""

    def change(told: dict[str, Any]) -> None:
        for name in place[:-1]:
            told = told[name]
        told[place[-1]] = value

    return change


def everything(site: SiteFolder) -> set[Path]:
    """Return all files around the site but for what every message may write."""
    around = site.path.parent.rglob("*")
    return {path for path in around if not {"journal", "run"} & set(path.relative_to(site.path.parent).parts)}


TASK, TRAINING = ("task",), ("task", "training")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        # unknown keys, anywhere
        (set_in("callback", value="os.system('touch pwned')"), "request.invalid"),
        (set_in(*TASK, "data_dir", value="/etc"), "request.invalid"),
        (set_in(*TRAINING, "optimizer_class", value="builtins.eval"), "request.invalid"),
        (set_in("privacy", "export_images", value=True), "request.invalid"),
        # out of every range
        (set_in(*TRAINING, "epochs", value=10**9), "request.invalid"),
        (set_in(*TRAINING, "epochs", value=-1), "request.invalid"),
        (set_in(*TRAINING, "batch_size", value=0), "request.invalid"),
        (set_in(*TRAINING, "batch_size", value=1.5), "request.invalid"),
        (set_in(*TRAINING, "learning_rate", value="1e400"), "request.invalid"),
        (set_in(*TRAINING, "patch_size", value=[512, 10**6, 8]), "request.invalid"),
        (set_in("rounds", value=10**9), "request.invalid"),
        (set_in("round_number", value=3), "request.round"),
        (set_in("seed", value=2**63), "request.invalid"),
        # within what can be said, beyond what this site allows
        (set_in(*TRAINING, "steps_per_round", value=99_999), "policy.steps"),
        (set_in(*TRAINING, "batch_size", value=256), "policy.batch-size"),
        (set_in(*TRAINING, "patch_size", value=[512, 1024, 1024]), "policy.patch-size"),
        (set_in("rounds", value=9_999), "policy.rounds"),
        (set_in(*TASK, "preprocessing", "spacing", value=[0.01, 0.01, 0.01]), "policy.spacing"),
        # names that are paths or code
        (set_in("group", value="../../CT"), "request.invalid"),
        (set_in(*TASK, "preprocessing", "modality", value="../../CT"), "request.invalid"),
        (set_in(*TASK, "preprocessing", "modality", value="MR"), "request.modality"),
        (set_in(*TRAINING, "loss", value="../loss.py"), "request.invalid"),
        (set_in(*TRAINING, "loss", value="os"), "loss.unknown"),
        (set_in(*TASK, "network", "name", value="subprocess"), "network.unknown"),
        (set_in(*TASK, "network", "options", "weights_file", value="/etc/passwd"), "network.options"),
        # a network of gigabytes with the weights of a small one
        (set_in(*TASK, "network", "options", value={"channels": [1024] * 7}), "weights.names-differ"),
        (set_in(*TASK, "network", "options", "channels", value=[1024, 1024]), "weights.shape-differs"),
    ],
)  # fmt: skip
def test_a_hostile_order_is_refused_by_a_code(attacked: SiteFolder, change: Change, code: str) -> None:
    before = everything(attacked), len(entries(attacked))
    assert only_a_code(train(attacked, changed(change))) == code
    told = entries(attacked)
    assert everything(attacked) == before[0]
    assert isinstance(told[-1], Refused)
    assert told[-1].code == code
    # no image was opened, but for a loss that is looked up when the trainer is made
    assert {entry.kind for entry in told[before[1] :]} <= {"order-received", "refused"} or code == "loss.unknown"


def tensors(content: dict[str, np.ndarray], raw: bytes | None = None) -> ArrayRecord:
    data = safetensors.save(content) if raw is None else raw
    return ArrayRecord({"tensors": Array("uint8", (len(data),), "safetensors", data)})


def with_model(model: ArrayRecord) -> RecordDict:
    return RecordDict({"model": model, "order": order()["order"]})


@pytest.mark.parametrize(
    ("model", "code"),
    [
        (tensors({"../../../etc/cron.d/x": np.zeros(3, np.float32)}), "weights.names-differ"),
        (tensors({"a\x1b[2Jb": np.zeros(3, np.float32)}), "tensors.name"),
        (tensors({"a" * 300: np.zeros(3, np.float32)}), "tensors.name"),
        (tensors({"w": np.full(3, np.nan, np.float32)}), "request.model-not-finite"),
        (tensors({f"t{n}": np.zeros(1, np.uint8) for n in range(20_001)}), "tensors.too-many"),
        # a header that promises 8 exabytes
        (tensors({}, (2**63 - 1).to_bytes(8, "little") + b"{}"), "tensors.unreadable"),
        (tensors({}, b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR."), "tensors.unreadable"),
        (ArrayRecord({"tensors": Array(np.zeros(3))}), "tensors.serialisation"),
        (ArrayRecord(), "request.model-empty"),
    ],
    ids=range(9),
)
def test_a_hostile_model_is_refused_by_a_code(attacked: SiteFolder, model: ArrayRecord, code: str) -> None:
    site = attacked
    assert only_a_code(train(site, with_model(model))) == code
    assert entries(site)[-1].code == code


def test_a_model_larger_than_the_policy_allows_is_refused_before_anything_is_done_with_it(attacked: SiteFolder) -> None:
    site = attacked
    policy = site.policy_file.read_bytes()
    write_policy(site.policy_file, tiny_policy(message_bytes=1024**2))
    giant = tensors({"w": np.random.default_rng(1).random(2**18 + 1, np.float32)})
    assert only_a_code(train(site, with_model(giant))) == "policy.message-size"
    site.policy_file.write_bytes(policy)
    refused = entries(site)[-1]
    assert isinstance(refused, Refused)
    assert (refused.measured, refused.allowed) == (float(2**20 + 4), float(2**20))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "[" * 100_000, '{"json": ' + "9" * 5000 + "}", "x" * 5_000_000]
)
def test_an_order_that_is_no_order_is_refused(attacked: SiteFolder, text: str) -> None:
    site = attacked
    content = RecordDict({"model": order()["model"], "order": ConfigRecord({"json": text})})
    assert only_a_code(train(site, content)) in ("request.invalid", "request.incomplete")


def test_a_kind_of_message_that_is_not_ours_is_refused(attacked: SiteFolder) -> None:
    site = attacked
    assert (
        only_a_code(ask(site, RecordDict({"shell": ConfigRecord({"run": "id"})}), MessageType.EVALUATE))
        == "request.incomplete"
    )
