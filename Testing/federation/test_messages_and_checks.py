"""What crosses the network: nothing pickled, nothing odd taken, no text of a site's errors."""

import contextlib
import json
import logging
import subprocess
import sys

import numpy as np
import pytest
from federation_helpers import AddingTrainer, federation
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from FedSegCore.common.errors import BadInputError, FedSegError
from FedSegCore.federation.checks import check_order, check_own_result, check_report, check_result
from FedSegCore.federation.client_app import answer, app
from FedSegCore.federation.local_grid import LocalGrid
from FedSegCore.federation.messages import (
    RoundOrder,
    RoundReport,
    SiteIntroduction,
    read_introduction,
    read_order,
    read_result,
    write_failure,
    write_order,
    write_query,
    write_result,
)
from FedSegCore.federation.software import app_fingerprint, software_versions
from FedSegCore.federation.tasks import training_task
from FedSegCore.federation.tensors import ENTRY, from_record, tensor_count, to_record
from FedSegCore.federation.trainer_port import SiteDescription
from FedSegCore.learning.results import CaseScore, RoundResult
from FedSegCore.volumes.usual import FEATURES, CohortUsual, Usual

LABELS = ("liver", "spleen")
MODEL = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.asarray(3, np.int64)}


def usual(**changes) -> Usual:
    return Usual.model_validate({"patients": 1, "mean": (1.0,), "deviation": (0.1,), **changes})


def code_of(work) -> str:
    with pytest.raises(FedSegError) as error:
        work()
    return error.value.code


def packed(header: object, data: bytes = b"") -> bytes:
    """Return a safetensors file written by hand: length, JSON header, bytes."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: str = "F32", shape: tuple[int, ...] = (2,), offsets: tuple[int, int] = (0, 8)) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def record(data: bytes, stype="safetensors", name=ENTRY) -> ArrayRecord:
    return ArrayRecord({name: Array("uint8", (len(data),), stype, data)})


def order(**changes) -> RoundOrder:
    entries = {"group": "CT", "round_number": 2, "rounds": 5, "seed": 7, "task": training_task(federation(), "CT")}
    return RoundOrder(**{**entries, **changes})


class TestTensors:
    def test_round_trip_keeps_values_types_and_shapes(self):
        arrays = {
            "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
            "scalar": np.asarray(5, np.int64),
            "flag": np.array([True, False]),
            "half": np.ones((1, 0, 2), np.float16),
            "big-endian": np.arange(3, dtype=">f8"),
        }
        back = from_record(to_record(arrays))
        assert back.keys() == arrays.keys()
        for name, array in arrays.items():
            assert_array_equal(back[name], array)
            assert back[name].dtype == array.dtype.newbyteorder("=")
            assert back[name].flags.writeable

    @pytest.mark.parametrize("array", [np.array(["text"]), np.array([object()]), np.array([1j])])
    def test_only_numbers_are_sent(self, array):
        assert code_of(lambda: to_record({"w": array})) == "tensors.type"

    def test_all_tensors_travel_as_one_object_that_any_reader_of_safetensors_understands(self):
        sent = to_record({"a": np.arange(2, dtype=np.float32), "b": np.ones(3, np.int64)})
        assert list(sent) == [ENTRY]
        by_hand = packed({"b": entry("I64", (3,), (0, 24)), "a": entry("F32", (2,), (24, 32))})
        by_hand += np.ones(3, "<i8").tobytes() + np.arange(2, dtype="<f4").tobytes()
        for one in (sent, record(by_hand)):
            back = from_record(one)
            assert tensor_count(one) == 2
            assert_array_equal(back["a"], [0, 1])
            assert_array_equal(back["b"], [1, 1, 1])
        assert from_record(to_record({})) == {}

    @pytest.mark.parametrize(
        ("odd", "code"),
        [
            (record(b"cos\nsystem\n(S'true'\ntR."), "tensors.unreadable"),
            (record(b""), "tensors.unreadable"),
            (record(packed([1, 2])), "tensors.unreadable"),
            (record(packed({"w": entry()}, bytes(7))), "tensors.unreadable"),
            (record(packed({"w": entry()}, bytes(9))), "tensors.unreadable"),
            (record(packed({"w": entry(shape=(1 << 40,))}, bytes(8))), "tensors.unreadable"),
            (record(packed({"w": entry("BF16", (4,))}, bytes(8))), "tensors.unreadable"),
            (record(packed({"w": entry(), "v": entry()}, bytes(8))), "tensors.unreadable"),
            (record(packed({f"w{n}": entry(shape=(0,), offsets=(0, 0)) for n in range(20_001)})), "tensors.too-many"),
            (record(packed({"w": entry()}, bytes(8)), stype="numpy.ndarray"), "tensors.serialisation"),
            (record(packed({"w": entry()}, bytes(8)), name="w"), "tensors.serialisation"),
            (record(packed({"a\nb": entry()}, bytes(8))), "tensors.name"),
            (record(packed({"x" * 300: entry()}, bytes(8))), "tensors.name"),
        ],
    )
    def test_odd_content_is_refused(self, odd, code):
        assert code_of(lambda: from_record(odd)) == code

    @given(st.binary(max_size=200))
    def test_whatever_is_sent_gives_arrays_or_a_coded_refusal(self, data):
        with contextlib.suppress(BadInputError):
            from_record(record(data))


class TestMessages:
    def test_an_order_arrives_as_it_was_written(self):
        read, weights = read_order(write_order(order(), to_record(MODEL)))
        assert read == order()
        assert read.request.seed == 7
        assert_array_equal(weights["w"], MODEL["w"])

    def test_a_result_arrives_as_it_was_written(self):
        score = CaseScore("c1", "liver", 0.5, 0.25, None)
        result = RoundResult(MODEL, 10, 5, 0.25, (score,), {"fedgs/w": MODEL["w"]}, {"train": 1.5})
        report, weights, extras = read_result(write_result(result, 2))
        assert report == RoundReport(
            round_number=2, num_examples=10, num_steps=5, loss=0.25, scores=(score,), seconds={"train": 1.5}
        )
        assert_array_equal(weights["w"], MODEL["w"])
        assert_array_equal(extras["fedgs/w"], MODEL["w"])

    @pytest.mark.parametrize(
        "changes",
        [
            {"round_number": 0},
            {"rounds": 10**6},
            {"seed": -1},
            {"group": "../x"},
            {"task": {"training": {"learning_rate": 1e9}}},
            {"code": "import os"},
        ],
    )
    def test_an_order_outside_its_ranges_is_refused(self, changes):
        content = write_order(order(), to_record(MODEL))
        text = order().model_dump(mode="json")
        text.update(changes)
        content["order"] = ConfigRecord({"json": json.dumps(text)})
        assert code_of(lambda: read_order(content)) == "request.invalid"

    def test_incomplete_messages_are_refused(self):
        assert code_of(lambda: read_order(RecordDict())) == "request.incomplete"
        assert code_of(lambda: read_order(RecordDict({"order": ConfigRecord({"json": 3})}))) == "request.incomplete"
        assert code_of(lambda: read_result(RecordDict())) == "reply.incomplete"
        assert code_of(lambda: read_introduction(write_query())) == "reply.incomplete"

    def test_a_failure_carries_a_code_and_never_a_text(self):
        assert code_of(lambda: read_result(write_failure("device.memory"))) == "device.memory"
        assert code_of(lambda: read_result(write_failure("/data/Doe^Jane"))) == "site.failed"
        sent = RecordDict({"failure": ConfigRecord({"code": "<script>"})})
        assert code_of(lambda: read_introduction(sent)) == "site.failed"


class TestServerChecks:
    def report(self, **changes):
        return RoundReport(**{"round_number": 2, "num_examples": 1, "num_steps": 1, "loss": 0.1, **changes})

    def test_a_good_answer_passes(self):
        check_result(self.report(), MODEL, {"fedgs/w": MODEL["w"]}, MODEL, 2)
        check_report(self.report(loss=-1e6), LABELS)
        check_report(self.report(loss=None), LABELS)
        check_report(self.report(annotated=(1, 2), scores=(CaseScore("c", "spleen", 0.5, 0.4),)), LABELS)
        check_report(self.report(usual=CohortUsual(volumes={1: usual(), 2: usual()})), LABELS)

    @pytest.mark.parametrize(
        ("report", "weights", "extras", "code"),
        [
            ({"round_number": 1}, {}, {}, "reply.round"),
            ({}, {"more": np.zeros(1)}, {}, "reply.names"),
            ({}, {"w": np.zeros((3, 2), np.float32)}, {}, "reply.shape"),
            ({}, {"w": np.zeros((2, 3), np.float64)}, {}, "reply.dtype"),
            ({}, {"w": np.full((2, 3), np.inf, np.float32)}, {}, "reply.not-finite"),
            ({}, {}, {"fedgs/w": np.full((2, 3), np.nan, np.float32)}, "reply.not-finite"),
            ({}, {}, {"fedgs/other": np.zeros(1, np.float32)}, "reply.names"),
            ({}, {}, {"fedgs/w": np.zeros(1, np.float32)}, "reply.shape"),
        ],
    )
    def test_what_is_wrong_is_named(self, report, weights, extras, code):
        sent = {**MODEL, **weights}
        assert code_of(lambda: check_result(self.report(**report), sent, extras, MODEL, 2)) == code

    def test_a_variance_below_zero_is_refused(self):
        """One site's would make the group's negative, and the model give nothing, however small its share."""
        model = {**MODEL, "bn.running_mean": np.zeros(2, np.float32), "bn.running_var": np.ones(2, np.float32)}
        for name, value, code in (("bn.running_mean", -9.0, ""), ("bn.running_var", 0.0, ""),
                                  ("bn.running_var", -1e-3, "reply.variance")):  # fmt: skip
            sent = {**model, name: np.array([1.0, value], np.float32)}
            if code:
                assert code_of(lambda sent=sent: check_result(self.report(), sent, {}, model, 2)) == code
            else:
                check_result(self.report(), sent, {}, model, 2)

    @pytest.mark.parametrize(
        ("report", "code"),
        [
            ({"scores": (CaseScore("c", "liver", 1.5, 0.1),)}, "reply.scores"),
            ({"scores": (CaseScore("c", "liver", 0.5, 0.1, float("nan")),)}, "reply.scores"),
            ({"scores": (CaseScore("c", "liver", 0.5, 0.1, 1.7e308),)}, "reply.scores"),
            ({"scores": (CaseScore("c", "kidney", 0.5, 0.4),)}, "reply.scores"),
            ({"loss": 1.1e6}, "reply.loss"),
            ({"loss": -1.7e308}, "reply.loss"),
            ({"seconds": {"train": -1.0}}, "reply.seconds"),
            ({"annotated": (1, 3)}, "reply.annotated"),
            ({"usual": CohortUsual(volumes={3: usual()})}, "reply.usual"),
            ({"usual": CohortUsual(volumes={1: usual(patients=1000)})}, "reply.usual"),
            ({"usual": CohortUsual(volumes={1: usual(mean=(51.0,))})}, "reply.usual"),
            ({"usual": CohortUsual(look=usual(mean=(0.1,) * FEATURES, deviation=(99.0,) * FEATURES))}, "reply.usual"),
        ],
    )
    def test_what_is_wrong_with_a_report_is_named(self, report, code):
        assert code_of(lambda: check_report(self.report(**report), LABELS)) == code

    def test_a_missing_tensor_is_named(self):
        assert code_of(lambda: check_result(self.report(), {"w": MODEL["w"]}, {}, MODEL, 2)) == "reply.names"

    @pytest.mark.parametrize("changes", [{"num_examples": -1}, {"num_examples": 10**12}, {"loss": float("nan")}])
    def test_counts_and_loss_are_bounded_when_read(self, changes):
        with pytest.raises(ValueError, match=next(iter(changes))):
            self.report(**changes)


class TestSiteChecks:
    site = SiteDescription("CT", 5, 1)

    @pytest.mark.parametrize(
        ("changes", "weights", "code"),
        [
            ({"task": training_task(federation(), "MR")}, MODEL, "request.modality"),
            ({"round_number": 6}, MODEL, "request.round"),
            ({}, {}, "request.model-empty"),
            ({}, {"w": np.array([np.nan], np.float32)}, "request.model-not-finite"),
        ],
    )
    def test_what_is_wrong_is_named(self, changes, weights, code):
        assert code_of(lambda: check_order(order(**changes), weights, self.site)) == code

    def test_a_model_beyond_the_size_limit_is_refused(self, monkeypatch):
        monkeypatch.setattr("FedSegCore.federation.checks.MAX_MODEL_BYTES", 10)
        assert code_of(lambda: check_order(order(), MODEL, self.site)) == "request.model-size"

    def test_a_diverged_result_stays_at_the_site(self):
        good = RoundResult(MODEL, 1, 1, 0.1)
        check_own_result(good)
        for bad in (
            RoundResult(MODEL, 1, 1, float("nan")),
            RoundResult({"w": np.array([np.inf])}, 1, 1, 0.1),
            RoundResult(MODEL, 1, 1, 0.1, extras={"fedgs/w": np.array([np.nan])}),
        ):
            assert code_of(lambda bad=bad: check_own_result(bad)) == "training.not-finite"


class TestClientApp:
    @staticmethod
    def context(name="ct-1"):
        return Context(run_id=1, node_id=2, node_config={"site": name}, state=RecordDict(), run_config={})

    @staticmethod
    def message(content, kind=MessageType.TRAIN):
        LocalGrid({})  # Flower needs to know whose process this is
        return Message(content, 2, kind)

    def test_query(self):
        reply = answer(self.message(write_query(), MessageType.QUERY), self.context(), AddingTrainer(examples=12))
        assert read_introduction(reply.content) == SiteIntroduction(
            site="ct-1",
            modality="CT",
            training_cases=12,
            validation_cases=1,
            software=software_versions(),
            fingerprint=app_fingerprint(),
        )

    def test_train(self):
        reply = answer(self.message(write_order(order(), to_record(MODEL))), self.context(), AddingTrainer())
        report, weights, _ = read_result(reply.content)
        assert_array_equal(weights["w"], MODEL["w"] + 1)
        assert report.round_number == 2

    def test_whatever_goes_wrong_only_a_code_leaves_and_the_log_has_the_rest(self, caplog):
        trainer = AddingTrainer(wrong={2: "raise"})
        with caplog.at_level(logging.WARNING):
            reply = answer(self.message(write_order(order(), to_record(MODEL))), self.context(), trainer)
        assert dict(reply.content["failure"]) == {"code": "site.failed"}
        assert "Doe^Jane" not in str(reply.content)
        assert "Doe^Jane" in caplog.text

    def test_an_unreadable_order_and_a_nameless_site_are_answered_too(self):
        reply = answer(self.message(RecordDict()), self.context(), AddingTrainer())
        assert code_of(lambda: read_result(reply.content)) == "request.incomplete"
        reply = answer(self.message(write_query(), MessageType.QUERY), self.context("a/b"), AddingTrainer())
        assert code_of(lambda: read_introduction(reply.content)) == "site.name"

    def test_the_bundles_own_app_trains_nothing(self):
        reply = app(self.message(write_query(), MessageType.QUERY), self.context())
        assert code_of(lambda: read_introduction(reply.content)) == "site.no-trainer"

    def test_starts_without_torch_and_monai(self):
        code = (
            "import sys, FedSegCore.federation.client_app; "
            "sys.exit(sum(name in sys.modules for name in ('torch', 'monai')))"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


def test_server_app_finds_its_run_by_a_plain_name(tmp_path, monkeypatch):
    from FedSegCore.federation.server_app import read_run_config, run_folder

    monkeypatch.setenv("FEDSEG_RUNS", str(tmp_path))
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "federation.json").write_text(federation().model_dump_json())
    assert read_run_config(run_folder("first")) == federation()
    for name in ("", "second", "../first", ".", "first/"):
        with pytest.raises(BadInputError, match=r"run\.unknown"):
            run_folder(name)
    (tmp_path / "first" / "federation.json").write_text("{}")
    with pytest.raises(BadInputError, match=r"run\.config"):
        read_run_config(run_folder("first"))
