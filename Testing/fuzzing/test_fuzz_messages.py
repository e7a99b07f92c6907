"""What crosses a wire: orders, answers, introductions and the worker's lines, spoilt."""

import io
import json
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from mutations import CODE, bounded, coded, odd_values, spoilt_bytes, spoilt_json

from FedSegCore.common.errors import FedSegError
from FedSegCore.federation.checks import check_counts, check_order, check_report, check_result
from FedSegCore.federation.config import FederationConfig
from FedSegCore.federation.messages import (
    RoundOrder,
    SiteIntroduction,
    read_introduction,
    read_order,
    read_result,
    write_introduction,
    write_order,
    write_result,
)
from FedSegCore.federation.payload import payload_of
from FedSegCore.federation.release_messages import (
    ReleaseAnswer,
    ReleaseOffer,
    answer_about_releases,
    is_about_releases,
    read_answer,
)
from FedSegCore.federation.tasks import training_task
from FedSegCore.federation.tensors import to_record
from FedSegCore.federation.trainer_port import SiteDescription
from FedSegCore.learning.config import TrainingConfig
from FedSegCore.learning.results import CaseScore, RoundResult
from FedSegCore.models.verification import card_from
from FedSegCore.volumes.labels import CodedTerm, Label, LabelContract
from FedSegCore.worker.channel import LineChannel
from FedSegCore.worker.methods import Methods
from FedSegCore.worker.server import WorkerServer

LIVER = Label(name="liver", value=1, type=CodedTerm(code="10200004", meaning="Liver"), colour=(221, 130, 101))
CONFIG = FederationConfig(name="fuzz", contract=LabelContract(labels=(LIVER,)))
MODEL = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.asarray(3, np.int64)}
ORDER = RoundOrder(group="CT", round_number=2, rounds=5, seed=7, task=training_task(CONFIG, "CT"))
SCORE = CaseScore("c1", "liver", 0.5, 0.25, 1.0)
RESULT = RoundResult(MODEL, 10, 5, 0.25, (SCORE,), {"fedgs/w": MODEL["w"]}, {"training": 1.5}, (1,))


@st.composite
def spoilt_content(draw: st.DrawFn, valid: RecordDict) -> RecordDict:
    """Draw a message's content with one record spoilt, exchanged or missing."""
    content = RecordDict(dict(valid))
    name = draw(st.sampled_from(sorted(content)))
    record = content[name]
    if draw(st.integers(0, 7)) == 0:
        del content[name]
    elif isinstance(record, ConfigRecord):
        text = draw(spoilt_json(json.loads(str(record["json"])))).decode("utf-8", errors="replace")
        content[name] = ConfigRecord({"json": text})
    elif isinstance(record, ArrayRecord) and record:
        (key, array), *_ = record.items()
        changed = Array(array.dtype, array.shape, array.stype, draw(spoilt_bytes(array.data)))
        content[draw(st.sampled_from((name, "failure", "order")))] = ArrayRecord({key: changed})
    return content


@bounded
@given(spoilt_content(write_order(ORDER, to_record(MODEL))))
def test_orders(content):
    read = coded(lambda: read_order(content))
    if not isinstance(read, FedSegError):
        coded(lambda: check_order(*read, SiteDescription("CT", 5, 1)))
        assert read[0].request.round_number == read[0].round_number


@bounded
@given(spoilt_content(write_result(RESULT, 2)))
def test_answers(content):
    coded(lambda: payload_of(content))
    read = coded(lambda: read_result(content, MODEL))
    if isinstance(read, FedSegError):
        return
    report, weights, extras = read
    checked = coded(lambda: check_result(report, weights, extras, MODEL, 2))
    if not isinstance(checked, FedSegError):
        # whatever passes is as the rules expect it
        assert {name: (a.shape, a.dtype) for name, a in weights.items()} == {
            name: (a.shape, a.dtype) for name, a in MODEL.items()
        }
        assert all(np.isfinite(array).all() for array in (*weights.values(), *extras.values()))
    coded(lambda: check_report(report, ("liver",)))
    coded(lambda: check_counts(report, TrainingConfig()))


@bounded
@given(spoilt_content(write_introduction(SiteIntroduction(site="a", modality="CT", training_cases=3, validation_cases=1,
                                                          fingerprint="0" * 64))))  # fmt: skip
def test_introductions(content):
    assert isinstance(coded(lambda: read_introduction(content)), FedSegError | SiteIntroduction)


@bounded
@given(st.dictionaries(st.sampled_from(("code", "json", "x")), st.text() | st.integers(0, 9) | st.binary(), max_size=2))
def test_failures(record):
    read = coded(lambda: read_result(RecordDict({"failure": ConfigRecord(record)})))
    assert isinstance(read, FedSegError)


class _Quiet(Methods):
    """The real methods but for the idle-time import of torch."""

    def warm_up(self):
        pass


LINES = (
    {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"client": "fuzz", "protocol": 1}},
    {"jsonrpc": "2.0", "id": "a", "method": "inspect", "params": {"image": "/nowhere/a.nii.gz", "modality": "CT"}},
    {"jsonrpc": "2.0", "id": 2, "method": "releases", "params": {"folder": "/nowhere", "modality": "CT"}},
    {"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": 2}},
    {
        "jsonrpc": "2.0",
        "id": 3,
        "method": "gin.preview",
        "params": {"image": "/nowhere/a.nii.gz", "folder": "/nowhere"},
    },
)


@bounded
@given(st.lists(st.sampled_from(LINES).flatmap(spoilt_json), min_size=1, max_size=4))
def test_worker_lines(lines):
    target = io.BytesIO()
    one_a_line = [line.replace(b"\n", b" ") for line in lines]
    WorkerServer(LineChannel(io.BytesIO(b"\n".join(one_a_line) + b"\n"), target), _Quiet()).serve()
    for line in target.getvalue().splitlines():
        message = json.loads(line)
        if "error" in message:
            told = message["error"]["data"]
            # "worker.failed" is the net under everything: nothing that a client sends may fall into it
            assert CODE.fullmatch(told["code"])
            assert told["code"] != "worker.failed", lines
            assert told["cause"]
            assert told["remedy"]


def test_the_paths_above_do_not_exist():
    assert not Path("/nowhere").exists()


@bounded
@given(odd_values())
def test_odd_values_alone(value):
    text = json.dumps(value)
    for name, read in (("order", read_order), ("report", read_result), ("site", read_introduction)):
        content = RecordDict({name: ConfigRecord({"json": text}), "model": ArrayRecord(), "extras": ArrayRecord()})
        assert isinstance(coded(lambda content=content, read=read: read(content)), FedSegError)


OFFER = ReleaseOffer(
    id="fuzz-CT-v1", card='{"format_version": 1}', signature="0" * 128, public_key="none", weights_bytes=40
)
OFFERS = RecordDict({"releases": ConfigRecord({"json": json.dumps({"offers": [OFFER.model_dump()]})})})
PARCEL = RecordDict({**OFFERS, "weights": to_record({"weights.safetensors": np.zeros(40, np.uint8)})})
ANSWER = RecordDict(
    {"releases": ConfigRecord({"json": '{"has": ["a-v1"], "wanted": [], "declined": {"b-v2": "a.b"}}'})}
)


class _Looking:
    """Looks at what a site looks at first: whether a card is one, and whose."""

    def consider(self, offers):
        for offer in offers:
            self.take(offer, b"")
        return ReleaseAnswer()

    def take(self, offer, weights):
        card_from(offer.id, offer.card.encode(), bytes.fromhex(offer.signature), offer.public_key.encode())


@bounded
@given(st.sampled_from((OFFERS, PARCEL)).flatmap(spoilt_content))
def test_offers_and_parcels_of_releases(content):
    if is_about_releases(content):
        assert isinstance(coded(lambda: answer_about_releases(content, _Looking())), FedSegError)


@bounded
@given(spoilt_content(ANSWER))
def test_answers_to_offers(content):
    assert isinstance(coded(lambda: read_answer(content)), FedSegError | ReleaseAnswer)
