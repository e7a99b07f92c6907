"""Models and updates with fewer bits: what travels, what comes back, what is held back, and that Dice stays."""

from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
from federation_helpers import AddingTrainer, Run, federation
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.testing import assert_allclose, assert_array_equal
from test_federated_run import cohort, small

from FedSegCore.common.errors import BadInputError
from FedSegCore.federation.compression import SCALES, Decoded, encode, lowered, raised
from FedSegCore.federation.federated_run import run_in_process
from FedSegCore.federation.messages import read_result, write_result
from FedSegCore.federation.outcome import FederationOutcome
from FedSegCore.federation.remainder import ExchangingTrainer, Remainder, decoded
from FedSegCore.federation.rounds import FederationLoop
from FedSegCore.federation.tensors import to_record
from FedSegCore.learning.exchange import ExchangeConfig
from FedSegCore.learning.results import RoundRequest, RoundResult

HALF = ExchangeConfig(precision="float16")
INT8 = ExchangeConfig(precision="int8")
FORMS = [
    HALF,
    INT8,
    ExchangeConfig(top_k=0.2),
    ExchangeConfig(precision="float16", top_k=0.2),
    ExchangeConfig(precision="int8", top_k=0.2),
    ExchangeConfig(downlink="float16"),
]


def kernel(*values: float) -> dict[str, np.ndarray]:
    return {"w": np.array([values], np.float32)}


def there_and_back(new, old, exchange):
    sent, unchanged = encode(new, old, exchange)
    return Decoded(sent, old, unchanged)


class TestWhatTravels:
    def test_half_precision_by_hand(self):
        # the largest change, 3, gives the scale 2; 1.5, 0.25 and 2^-12 are float16 numbers
        sent, unchanged = encode(kernel(4.0, 1.5, 1 + 2**-11), kernel(1, 1, 1), HALF)
        assert set(sent) == {"w:codes", SCALES}
        assert sent["w:codes"].dtype == np.float16
        assert_array_equal(sent["w:codes"], [[1.5, 0.25, 2**-12]])
        assert_array_equal(sent[SCALES], np.array([2.0], np.float32))
        assert unchanged == ()

    def test_eight_bits_by_hand_towards_zero(self):
        # the scale is 12.7 / 127 = 0.1
        sent, _ = encode(kernel(12.7, -0.19, 0.31, -0.05), kernel(0, 0, 0, 0), INT8)
        assert_array_equal(sent["w:codes"], np.array([[127, -1, 3, 0]], np.int8))
        assert_allclose(sent[SCALES], [0.1], rtol=1e-6)

    def test_the_largest_changes_by_hand(self):
        old = {"w": np.zeros((2, 5), np.float32)}
        new = {"w": np.array([[0, 1, -9, 2, 0], [8, 0, 3, 0, -4]], np.float32)}
        sent, _ = encode(new, old, ExchangeConfig(top_k=0.3))
        # values 2, 5 and 9 of ten: bits 00100100 01000000
        assert_array_equal(sent["w:mask"], [0b00100100, 0b01000000])
        assert_array_equal(sent["w:codes"], [-9.0, 8.0, -4.0])
        assert_array_equal(Decoded(sent, old)["w"], [[0, 0, -9, 0, 0], [8, 0, 0, 0, -4]])

    def test_only_changed_tensors_travel_and_only_kernels_are_shortened(self):
        old = {
            "same": np.ones((2, 2), np.float32),
            "bias": np.array([1.0, 2.0], np.float32),
            "count": np.asarray(3, np.int64),
            "kernel": np.ones((2, 2), np.float32),
        }
        new = {**old, "bias": np.array([1.1, 2.0], np.float32), "count": np.asarray(4), "kernel": old["kernel"] * 1.1}
        sent, unchanged = encode(new, old, HALF)
        assert unchanged == ("same",)
        assert set(sent) == {"bias", "count", "kernel:codes", SCALES}
        back = Decoded(sent, old, unchanged)
        assert back.keys() == old.keys()
        for name in ("same", "bias", "count"):
            assert_array_equal(back[name], new[name])
            assert back[name].dtype == new[name].dtype

    def test_the_default_is_exact_to_the_last_bit(self):
        generator = np.random.default_rng(0)
        old = {"w": generator.normal(size=(5, 7)).astype(np.float32)}
        new = {"w": (old["w"] + 1e-3 * generator.normal(size=(5, 7))).astype(np.float32)}
        assert_array_equal(there_and_back(new, old, ExchangeConfig())["w"], new["w"])

    def test_bytes_of_every_form(self):
        generator = np.random.default_rng(0)
        old = {"w": np.zeros((100, 1000), np.float32)}
        new = {"w": generator.normal(size=(100, 1000)).astype(np.float32)}
        sizes = [sum(a.nbytes for a in encode(new, old, form)[0].values()) for form in FORMS]
        assert sizes == [200_004, 100_004, 12_500 + 80_004, 12_500 + 40_004, 12_500 + 20_004, 400_004]

    @pytest.mark.parametrize("form", FORMS, ids=str)
    @settings(max_examples=30, deadline=None)
    @given(
        change=arrays(
            np.float32,
            array_shapes(min_dims=2, max_dims=3, max_side=6),
            # a scale of something next to nothing is no normal float32 any more
            elements=st.floats(-(2.0**60), 2.0**60, width=32).map(lambda x: x if abs(x) > 2.0**-60 else 0.0),
        )
    )
    def test_what_arrives_is_never_longer_has_the_same_signs_and_is_near(self, form, change):
        old = {"w": np.zeros(change.shape, np.float32)}
        back = there_and_back({"w": change}, old, form)["w"]
        assert (np.abs(back) <= np.abs(change) * (1 + 1e-6)).all()
        assert (back * np.sign(change) >= 0).all()
        if form.top_k is None:
            step = np.abs(change).max() / (127 if form.precision == "int8" else 2**10)
            assert (np.abs(back - change) <= step * (1 + 1e-5)).all()


class TestWhatIsRefused:
    OLD = MappingProxyType({"w": np.zeros((2, 5), np.float32), "n": np.zeros(3, np.int64)})
    CODES = np.zeros((2, 5), np.float16)
    ONE = np.ones(1, np.float32)

    @pytest.mark.parametrize(
        ("sent", "unchanged"),
        [
            ({"w:codes": CODES}, ()),
            ({"w:codes": CODES, SCALES: np.ones(2, np.float32)}, ()),
            ({"w:codes": CODES, SCALES: np.ones(1)}, ()),
            ({"w:codes": CODES, SCALES: np.array([np.inf], np.float32)}, ()),
            ({"w:codes": CODES[:1], SCALES: ONE}, ()),
            ({"w:codes": CODES.astype(np.int16), SCALES: ONE}, ()),
            ({"w:codes": CODES, "w": CODES, SCALES: ONE}, ()),
            ({"w:codes": CODES, SCALES: ONE}, ("w",)),
            ({"x:codes": CODES, SCALES: ONE}, ()),
            ({"n:codes": np.zeros(3, np.int8), SCALES: ONE}, ()),
            ({}, ("x",)),
            ({}, ("w", "w")),
            ({"w:codes": np.zeros(2, np.int8), "w:mask": np.array([1, 0], np.uint8), SCALES: ONE}, ()),
            ({"w:codes": np.zeros(1, np.int8), "w:mask": np.array([1], np.uint8), SCALES: ONE}, ()),
            ({"w:codes": np.zeros(1, np.int8), "w:mask": np.array([1, 0], np.int8), SCALES: ONE}, ()),
            ({"w:codes": np.zeros((1, 1), np.int8), "w:mask": np.array([1, 0], np.uint8), SCALES: ONE}, ()),
        ],
    )
    def test_what_does_not_fit_is_refused(self, sent, unchanged):
        with pytest.raises(BadInputError, match=r"reply\.encoding"):
            dict(Decoded(sent, self.OLD, unchanged).items())

    @pytest.mark.parametrize(("codes", "code"), [(np.inf, "reply.not-finite"), (1.0, "")])
    def test_the_loop_names_a_site_whose_update_is_no_number_and_goes_on(self, tmp_path, codes, code):
        class Odd(ExchangingTrainer):
            def train_round(self, task, weights, request):
                sent = super().train_round(task, weights, request)
                poisoned = {**sent.weights, "a:codes": np.full((2, 3), codes, np.float16)}
                return replace(sent, weights=poisoned)

        run = Run(tmp_path, federation(rounds=1, exchange=HALF), {"odd": Odd(AddingTrainer()), "good": AddingTrainer()})
        skipped = pytest.MonkeyPatch()
        with skipped.context() as patch:
            patch.setattr("FedSegCore.federation.client_app.check_own_result", lambda result: None)
            run.loop().run()
        history = FederationOutcome.load(tmp_path).groups["CT"].history
        assert {row.site: row.code for row in history} == {"odd": code, "good": ""}


class TestErrorFeedback:
    @staticmethod
    def request(number: int, exchange: ExchangeConfig) -> RoundRequest:
        return RoundRequest(number, 99, 0, exchange=exchange)

    @pytest.mark.parametrize("form", FORMS[:5], ids=str)
    def test_nothing_is_lost_only_late(self, form, tmp_path):
        """After any round: what arrived so far and what is still held make up all that was trained."""
        generator = np.random.default_rng(4)
        remainder = Remainder(folder := tmp_path / "site" / "remainder")
        model = {"w": np.zeros((8, 9), np.float32)}
        trained, arrived = np.zeros((8, 9)), np.zeros((8, 9))
        for number in range(1, 30):
            change = generator.normal(size=(8, 9)).astype(np.float32)
            trained += change
            result = RoundResult({"w": change}, 1, 1, None, extras={"fedgs/w": 2 * change})
            request = self.request(number, form)
            sent = remainder.leave(model, remainder.join(model, result, request), request)
            if number == 20:  # the process ends; its files do not
                remainder = Remainder(folder)
            back = decoded(sent, model)
            arrived += back.weights["w"]
            assert_allclose(back.extras["fedgs/w"], 2 * back.weights["w"], atol=1e-4)
        last = RoundResult(model, 1, 1, None, extras={"fedgs/w": model["w"]})
        held = remainder.join(model, last, self.request(30, form)).weights["w"]
        assert_allclose(arrived + held, trained, atol=2e-4)
        assert np.abs(arrived - trained).max() > 1e-4

    @pytest.mark.parametrize("folder", [False, True])
    def test_a_round_that_is_asked_for_again_is_answered_alike(self, folder, tmp_path):
        remainder = Remainder(tmp_path / "site" / "remainder" if folder else None)
        model = {"w": np.zeros((1, 4), np.float32)}
        answers = []
        for number in (1, 2, 2, 3):
            result = RoundResult(kernel(1.0, 0.3001, 0.7, 0.1 * number), 1, 1, None)
            request = self.request(number, INT8)
            answers.append(remainder.leave(model, remainder.join(model, result, request), request))
        assert_array_equal(answers[1].weights["w:codes"], answers[2].weights["w:codes"])

    @pytest.mark.parametrize("change", ["an earlier round", "another model", "switched off"])
    def test_it_is_forgotten_where_it_does_not_belong(self, change):
        remainder = Remainder()
        model = {"w": np.zeros((1, 4), np.float32)}
        result = RoundResult(kernel(1.0, 0.3001, 0.7, 0.2), 1, 1, None)
        request = self.request(5, INT8)
        remainder.leave(model, remainder.join(model, result, request), request)
        after = {"an earlier round": self.request(1, INT8), "another model": self.request(6, INT8)}
        off = INT8.model_copy(update={"error_feedback": False})
        asked = after.get(change, self.request(6, off))
        if change == "another model":
            model, result = (
                {"w": np.zeros((2, 2), np.float32)},
                RoundResult({"w": np.ones((2, 2), np.float32)}, 1, 1, 0),
            )
        assert_array_equal(remainder.join(model, result, asked).weights["w"], result.weights["w"])

    def test_small_steady_changes_arrive_with_feedback_and_never_without(self):
        """A hundred rounds of 1 and 0.001: without feedback eight bits never say the second."""
        for feedback, expected in ((True, 0.1), (False, 0.0)):
            form = ExchangeConfig(precision="int8", error_feedback=feedback)
            trainer = ExchangingTrainer(_Steady(kernel(1.0, 0.001)))
            model = kernel(0.0, 0.0)
            for number in range(1, 101):
                sent = trainer.train_round(None, model, self.request(number, form))
                model = dict(decoded(sent, model).weights)
            assert_allclose(model["w"][0], [100.0, expected], atol=1 / 127)


class _Steady:
    def __init__(self, change) -> None:
        self.change = change

    def train_round(self, task, weights, request) -> RoundResult:
        return RoundResult({name: weights[name] + change for name, change in self.change.items()}, 1, 1, None)


class _Growing(AddingTrainer):
    """Adds its step in the first round, twice that in the second …: no two updates are alike."""

    def train_round(self, task, weights, request) -> RoundResult:
        return (
            super().train_round(task, weights, request) if request.round_number == 1 else self._more(weights, request)
        )

    def _more(self, weights, request) -> RoundResult:
        self.received[request.round_number] = dict(weights)
        more = np.float32(self.step * request.round_number)
        return RoundResult({name: array + more for name, array in weights.items()}, 10, 5, None)


class TestDownlink:
    def test_kernels_travel_in_half_precision_and_come_back_as_float32(self):
        model = {
            "w": np.array([[1.0, 1 + 2**-12]], np.float32),
            "huge": np.array([[1e6]], np.float32),
            "bias": np.array([1 + 2**-12], np.float32),
            "n": np.asarray(3),
        }
        sent = lowered(model, ExchangeConfig(downlink="float16"))
        assert {name: str(array.dtype) for name, array in sent.items()} == {
            "w": "float16",
            "huge": "float32",
            "bias": "float32",
            "n": "int64",
        }
        back = raised(sent)
        assert_array_equal(back["w"], np.array([[1.0, 1.0]], np.float32))
        assert back["w"].dtype == np.float32
        assert lowered(model, HALF) is model

    def test_changes_below_float16s_resolution_add_up_at_the_server(self, tmp_path):
        """At 1000 float16 counts in halves; 0.01 + 0.02 + … + 0.1 must make 0.55."""
        trainer = _Growing(step=0.01)
        config = federation(rounds=10, exchange=ExchangeConfig(downlink="float16"))
        run_in_process(
            config, {"ct": trainer}, tmp_path, make_model=lambda *_: {"w": np.full((2, 2), 1000.0, np.float32)}
        )
        model = FederationOutcome.load(tmp_path).groups["CT"].model
        assert_allclose(model["w"], 1000.55, atol=2e-3)
        # the sites trained on what float16 can say
        assert {float(received["w"][0, 0]) for received in trainer.received.values()} == {1000.0, 1000.5}

    def test_flames_mixes_the_full_precision_models(self, tmp_path):
        config = federation(
            rounds=2,
            aggregation={"rule": "flames", "options": {"alpha": 0.75}},
            exchange=ExchangeConfig(precision="float16", downlink="float16"),
        )
        run_in_process(
            config,
            {"a": _Growing(step=4.0), "b": _Growing(step=8.0)},
            tmp_path,
            make_model=lambda *_: {"w": np.full((2, 2), 1000.2, np.float32)},
        )
        group = FederationOutcome.load(tmp_path).groups["CT"]
        # round 1: a gets 5 more, b 7; round 2: they add 8 and 16 to these: 13 and 23
        assert_allclose(group.model["w"], 1018.2, atol=1e-3)
        assert_allclose(group.model_of("a")["w"], 1000.2 + 0.75 * 13 + 0.25 * 23, atol=1e-3)


def test_an_encoded_answer_crosses_the_network_and_names_what_did_not_travel():
    old = {"w": np.zeros((4, 4), np.float32), "same": np.ones((2, 2), np.float32)}
    new = {**old, "w": np.arange(16, dtype=np.float32).reshape(4, 4)}
    result = Remainder().leave(old, RoundResult(new, 3, 2, 0.5), RoundRequest(1, 1, 0, exchange=HALF))
    report, weights, extras = read_result(write_result(result, 1), old)
    assert report.unchanged == ("same",)
    assert len(extras) == 0
    assert_array_equal(weights["w"], new["w"])
    assert_array_equal(weights["same"], old["same"])


FEDGS = {**small().training.model_dump(), "fedgs": {"labels": ["liver"]}}


def test_dice_is_that_of_full_precision(tmp_path):
    """Two sites, seeded: mean Dice of the last round's model over both sites' validation cases."""
    plain = dice(tmp_path / "plain", ExchangeConfig(), 4)
    assert plain > 0.9
    both_ways = ExchangeConfig(precision="float16", downlink="float16")
    assert dice(tmp_path / "half", both_ways, 4) == pytest.approx(plain, abs=0.01)
    assert dice(tmp_path / "int8", INT8, 4) == pytest.approx(plain, abs=0.01)


def test_a_quarter_of_the_changes_needs_more_rounds_for_the_same_dice(tmp_path):
    # full precision has 0.95 after four rounds
    assert dice(tmp_path, ExchangeConfig(precision="float16", top_k=0.25), 6) > 0.95


def dice(folder, form: ExchangeConfig, rounds: int) -> float:
    config = small(rounds=rounds, exchange=form)
    sites = {name: ("CT", cohort(first)) for name, first in (("one", 0), ("two", 10))}
    rows = run_in_process(config, sites, folder).groups["CT"].score_rows()
    return float(np.mean([row["dice"] for row in rows if row["round"] == rounds]))


def test_fedgs_extra_tensors_travel_shortened_too(tmp_path):
    def model(form: ExchangeConfig, name: str):
        config = small(rounds=2, aggregation={"rule": "fedgs"}, training=FEDGS, exchange=form)
        return run_in_process(config, {"one": ("CT", cohort(0))}, tmp_path / name).groups["CT"]

    whole, half = model(ExchangeConfig(), "whole"), model(HALF, "half")
    assert sum(row.bytes_received for row in half.history) < 0.6 * sum(row.bytes_received for row in whole.history)
    # of the whole model: a single small weight moves by a step where rounding turns the sign of its gradient
    difference, size = (
        np.sqrt(sum(float((array.astype(np.float64) ** 2).sum()) for array in arrays))
        for arrays in ([half.model[name] - array for name, array in whole.model.items()], whole.model.values())
    )
    assert difference < 2e-3 * size
    for name, array in whole.model.items():
        assert_allclose(half.model[name], array, atol=1e-2)


def test_a_folders_run_keeps_its_form(tmp_path):
    run = Run(tmp_path, federation(rounds=1), {"ct": AddingTrainer()})
    run.loop().run()
    with pytest.raises(BadInputError, match=r"federation\.config-changed"):
        FederationLoop(run.grid, federation(rounds=1, exchange=HALF), tmp_path).run()


def test_to_record_of_a_lowered_model_weighs_half():
    model = {"w": np.zeros((100, 100), np.float32)}
    weights = [len(next(iter(to_record(lowered(model, form)).values())).data) for form in (HALF, FORMS[-1])]
    assert weights[0] > 40_000
    assert 20_000 < weights[1] < 20_200
