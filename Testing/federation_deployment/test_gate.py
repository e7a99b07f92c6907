"""The outgoing gate, value by value, with expectations worked out by hand."""

import contextlib
import hashlib
import hmac
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from federation_orders import task_with
from flwr.app import ConfigRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from FedSegCore.common.errors import BadInputError
from FedSegCore.federation.checks import check_limits
from FedSegCore.federation.messages import write_result
from FedSegCore.federation.payload import payload_of
from FedSegCore.federation.site.accountant import running_epsilon
from FedSegCore.federation.site.gate import GateFacts, Outgoing, pass_gate
from FedSegCore.federation.site.gated_trainer import pseudonym
from FedSegCore.federation.site.policy import (
    PolicyError,
    SitePolicy,
    TrainingLimits,
    policy_words,
    read_policy,
    write_policy,
)
from FedSegCore.federation.tensors import to_record
from FedSegCore.learning.privacy import METRICS, PrivacyRules
from FedSegCore.learning.results import CaseScore, RoundRequest, RoundResult
from FedSegCore.volumes.usual import FEATURES, CohortUsual, Usual

# norm of the model: √(3² + 4²) = 5; of the update: √(6² + 8²) = 10
RECEIVED = {"w": np.array([3.0, 0.0], np.float32), "b": np.array([4.0], np.float32), "n": np.array(7, np.int64)}
TRAINED = {"w": np.array([9.0, 0.0], np.float32), "b": np.array([12.0], np.float32), "n": np.array(7, np.int64)}
RESULT = RoundResult(
    weights=TRAINED,
    num_examples=6,
    num_steps=2,
    loss=0.123456,
    scores=(CaseScore("scan-Doe-Jane", "liver", 0.98765, 0.97561, 1.23456),),
    seconds={"training": 1.23456, "scoring": 2.0, "host-of-Dr-Doe": 3.0},
    annotated=(1,),
)

LAX = PrivacyRules()


def facts(**changes) -> GateFacts:
    entries = {
        "training_patients": 6,
        "scored_patients": 6,
        "extras": frozenset(),
        "labels": 1,
        "max_bytes": 1000,
        "pseudonym": lambda case: pseudonym(b"secret", case),
        "generator": np.random.default_rng(1),
    }
    return GateFacts(**{**entries, **changes})


def send(result=RESULT, rules=LAX, received=RECEIVED, **changes) -> Outgoing:
    return pass_gate(rules, received, result, facts(**changes))


def code_of(**arguments) -> str:
    with pytest.raises(BadInputError) as error:
        send(**arguments)
    return error.value.code


def usual(patients: int, mean: float = 1.23456) -> Usual:
    return Usual(patients=patients, mean=(mean,), deviation=(0.12345,))


LOOK = Usual(patients=6, mean=(0.11111,) * FEATURES, deviation=(0.01119,) * FEATURES)
COHORT = CohortUsual(look=LOOK, volumes={1: usual(6), 2: usual(5), 3: usual(4)})


class TestWhatIsUsual:
    def test_nothing_is_told_of_fewer_patients_than_the_minimum_and_all_is_rounded(self):
        rules = PrivacyRules(minimum_cases=5, decimals=2)
        told = send(replace(RESULT, usual=COHORT), rules, labels=3).result.usual
        assert told.volumes == {
            1: Usual(patients=6, mean=(1.23,), deviation=(0.12,)),
            2: Usual(patients=5, mean=(1.23,), deviation=(0.12,)),
        }
        assert told.look == Usual(patients=6, mean=(0.11,) * FEATURES, deviation=(0.01,) * FEATURES)
        nobody = send(replace(RESULT, usual=COHORT), PrivacyRules(minimum_cases=6, decimals=2), labels=3).result.usual
        assert set(nobody.volumes) == {1}

    def test_the_policy_may_hold_either_back(self):
        for held, look, volumes in (("look", False, 3), ("volumes", True, 0)):
            rules = PrivacyRules(metrics=tuple(name for name in METRICS if name != held))
            told = send(replace(RESULT, usual=COHORT), rules, labels=3).result.usual
            assert (told.look is not None, len(told.volumes)) == (look, volumes)

    def test_a_label_that_the_contract_does_not_have_is_refused(self):
        assert code_of(result=replace(RESULT, usual=COHORT), labels=2) == "gate.counts"

    def test_the_policy_says_so_in_words(self):
        words = " ".join(policy_words(SitePolicy()))
        assert "mean and spread over patients of each structure's volume" in words
        assert "histogram" in words


class TestWhatMayLeave:
    def test_lax_rules_let_the_tensors_through_unchanged(self):
        out = send()
        assert out.norm == pytest.approx(10.0)
        assert (out.clipped, out.suppressed) == (False, False)
        assert all(out.result.weights[name] is TRAINED[name] for name in TRAINED)

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            ({"extra": np.zeros(1, np.float32)}, "gate.names"),
            ({"w": np.zeros(3, np.float32)}, "gate.shape"),
            ({"w": np.zeros((2, 1), np.float32)}, "gate.shape"),
            ({"w": np.zeros(2, np.float64)}, "gate.dtype"),
            ({"w": np.array([np.nan, 0.0], np.float32)}, "gate.not-finite"),
            ({"w": np.array([np.inf, 0.0], np.float32)}, "gate.not-finite"),
            ({"n": np.array(8, np.int64)}, "gate.counters"),
        ],
    )
    def test_tensors_other_than_the_received_models_are_refused(self, change, code):
        assert code_of(result=replace(RESULT, weights={**TRAINED, **change})) == code

    def test_a_missing_tensor_is_refused(self):
        assert code_of(result=replace(RESULT, weights={"w": TRAINED["w"], "b": TRAINED["b"]})) == "gate.names"

    def test_extra_tensors_leave_only_where_the_rule_asks_for_them(self):
        given = replace(RESULT, extras={"fedgs/w": np.array([0.0, 24.0], np.float32)})
        assert code_of(result=given) == "gate.extras"
        # the update is both together: √(10² + 24²) = 26
        assert send(given, extras=frozenset({"fedgs"})).norm == pytest.approx(26.0)
        for wrong in ({"fedgs/x": np.zeros(2, np.float32)}, {"w": np.zeros(2, np.float32)}):
            assert code_of(result=replace(RESULT, extras=wrong), extras=frozenset({"fedgs"})) == "gate.names"
        counter = {"fedgs/n": np.array(123456, np.int64)}
        assert code_of(result=replace(RESULT, extras=counter), extras=frozenset({"fedgs"})) == "gate.extras"

    def test_the_norm_bound_is_relative_to_the_received_model(self):
        assert send(rules=PrivacyRules(norm_bound=2.0)).norm == pytest.approx(10.0)
        with pytest.raises(PolicyError) as refused:
            send(rules=PrivacyRules(norm_bound=1.99))
        assert refused.value.code == "gate.norm"
        assert (refused.value.measured, refused.value.allowed) == (pytest.approx(10.0), pytest.approx(9.95))
        small = {name: array * 0 for name, array in RECEIVED.items()}
        zero = replace(RESULT, weights={**TRAINED, "n": small["n"]})
        # the update from nothing is √(9² + 12²) = 15, and a model shorter than 1 counts as 1
        assert send(zero, PrivacyRules(norm_bound=15.0), small).norm == pytest.approx(15.0)
        assert code_of(result=zero, rules=PrivacyRules(norm_bound=14.9), received=small) == "gate.norm"

    def test_a_norm_beyond_single_precision_is_seen(self):
        exploded = replace(RESULT, weights={**TRAINED, "w": np.full(2, 3e38, np.float32)})
        with pytest.raises(PolicyError) as refused:
            send(exploded, PrivacyRules(norm_bound=10.0))
        assert refused.value.measured == pytest.approx(3e38 * math.sqrt(2.0))

    def test_too_few_patients_too_many_bytes_and_impossible_counts_are_refused(self):
        assert code_of(rules=PrivacyRules(minimum_cases=7)) == "gate.too-few-cases"
        assert send(rules=PrivacyRules(minimum_cases=6)).result.num_examples == 6
        # 3 float32 and 1 int64 are 20 bytes
        assert code_of(max_bytes=19) == "gate.message-size"
        assert send(max_bytes=20).result.num_steps == 2
        assert code_of(result=replace(RESULT, num_examples=-1)) == "gate.counts"
        assert code_of(result=replace(RESULT, annotated=(1, 2))) == "gate.counts"
        assert code_of(result=replace(RESULT, loss=math.nan)) == "gate.not-finite"


class TestClippingAndNoise:
    def test_clipping_scales_the_whole_update(self):
        given = replace(RESULT, extras={"fedgs/w": np.array([0.0, 24.0], np.float32)})
        out = send(given, PrivacyRules(clip_norm=13.0), extras=frozenset({"fedgs"}))
        # 26 becomes 13, so every change is halved
        assert out.clipped
        np.testing.assert_allclose(out.result.weights["w"], [6.0, 0.0], rtol=1e-6)
        np.testing.assert_allclose(out.result.weights["b"], [8.0], rtol=1e-6)
        np.testing.assert_allclose(out.result.extras["fedgs/w"], [0.0, 12.0], rtol=1e-6)
        assert out.result.weights["n"] == 7
        assert {array.dtype for array in out.result.weights.values()} == {np.dtype("f4"), np.dtype("i8")}

    def test_a_short_update_is_not_stretched(self):
        out = send(rules=PrivacyRules(clip_norm=11.0))
        assert not out.clipped
        np.testing.assert_allclose(out.result.weights["w"], TRAINED["w"], rtol=1e-6)

    def test_noise_has_the_promised_spread_and_is_drawn_for_every_value(self):
        received = {"w": np.zeros(200_000, np.float32)}
        same = replace(RESULT, weights={"w": np.zeros(200_000, np.float32)})
        out = send(same, PrivacyRules(clip_norm=2.0, noise_multiplier=1.5), received, max_bytes=10**6)
        values = out.result.weights["w"]
        # σ = 1.5 · 2; the spread of 200,000 draws is known to 0.2 %
        assert values.std() == pytest.approx(3.0, rel=0.01)
        assert values.mean() == pytest.approx(0.0, abs=0.05)
        assert len(np.unique(values)) > 190_000

    def test_noise_never_makes_a_variance_negative(self):
        received = {"bn.running_var": np.full(1000, 0.01, np.float32)}
        out = send(replace(RESULT, weights=received), PrivacyRules(clip_norm=1.0, noise_multiplier=1.0), received,
                   max_bytes=10**4)  # fmt: skip
        assert out.result.weights["bn.running_var"].min() == 0.0

    def test_with_noise_no_refusal_depends_on_the_length(self):
        rules = PrivacyRules(norm_bound=0.001, clip_norm=1.0, noise_multiplier=1.0)
        assert send(rules=rules).clipped

    def test_epsilon_is_that_of_the_gaussian_mechanism(self):
        """ε = min over α of T·α/(2σ²) + ln((α-1)/α) - (ln δ + ln α)/(α-1) (Canonne et al. 2020).

        σ is half the multiplier: two updates may lie twice the clipping norm apart.
        """
        pytest.importorskip("opacus")
        noise, rounds, delta = 4.0, 10, 1e-5
        sigma = noise / 2.0
        alphas = [1.0 + x / 10.0 for x in range(1, 100)] + list(range(12, 64))
        expected = min(
            rounds * a / (2.0 * sigma**2) + math.log((a - 1.0) / a) - (math.log(delta) + math.log(a)) / (a - 1.0)
            for a in alphas
        )
        assert running_epsilon([noise] * rounds, delta) == pytest.approx(expected, rel=1e-6)
        assert running_epsilon([noise] * 5, delta) < running_epsilon([noise] * 5 + [2.0] * 5, delta)
        assert running_epsilon([], delta) == 0.0


class TestMetrics:
    def test_they_are_rounded_and_cases_get_pseudonyms(self):
        told = send(rules=PrivacyRules(decimals=2)).result
        alias = "case-" + hmac.new(b"secret", b"scan-Doe-Jane", hashlib.sha256).hexdigest()[:12]
        assert told.scores == (CaseScore(alias, "liver", 0.99, 0.98, 1.23),)
        assert told.loss == 0.12
        assert told.seconds == {"training": 1.23, "scoring": 2.0}
        assert pseudonym(b"other site", "scan-Doe-Jane") != alias

    def test_only_listed_metrics_leave(self):
        none = send(rules=PrivacyRules(metrics=())).result
        assert (none.loss, none.scores, none.seconds) == (None, (), {})
        assert send(rules=PrivacyRules(metrics=("overlap",))).result.scores[0].surface_distance_mm is None
        assert send(rules=PrivacyRules(metrics=("surface_distance", "loss"))).result.scores == ()

    def test_scores_of_too_few_patients_are_held_back(self):
        out = send(rules=PrivacyRules(minimum_cases=6), scored_patients=5)
        assert out.suppressed
        assert out.result.scores == ()
        assert not send(replace(RESULT, scores=()), PrivacyRules(minimum_cases=6), scored_patients=0).suppressed


class TestRules:
    def test_the_stricter_of_two_counts(self):
        site = PrivacyRules(minimum_cases=5, norm_bound=10.0, metrics=("overlap", "loss"), decimals=3)
        asked = PrivacyRules(
            minimum_cases=3,
            norm_bound=4.0,
            clip_norm=1.0,
            noise_multiplier=0.5,
            metrics=("loss", "seconds"),
            decimals=4,
        )
        both = site.stricter(asked)
        assert (both.minimum_cases, both.norm_bound, both.clip_norm, both.noise_multiplier) == (5, 4.0, 1.0, 0.5)
        assert (both.metrics, both.decimals) == (("loss",), 3)
        assert site.stricter(PrivacyRules()) == site

    @given(data=st.data())
    def test_joining_never_loosens(self, data):
        one, other = (data.draw(any_rules()) for _ in range(2))
        both = one.stricter(other)
        assert both == other.stricter(one)
        for rules in (one, other):
            assert both.minimum_cases >= rules.minimum_cases
            assert both.decimals <= rules.decimals
            assert set(both.metrics) <= set(rules.metrics)
            for name in ("norm_bound", "clip_norm", "epsilon_limit"):
                bound = getattr(rules, name)
                assert bound is None or getattr(both, name) <= bound
            assert (both.noise_multiplier or 0.0) >= (rules.noise_multiplier or 0.0)

    @pytest.mark.parametrize(
        ("training", "rounds", "code"),
        [
            ({"epochs": 21}, 5, "policy.epochs"),
            ({"steps_per_round": 5001}, 5, "policy.steps"),
            ({"batch_size": 65}, 5, "policy.batch-size"),
            ({"patch_size": (512, 512, 512)}, 5, "policy.patch-size"),
            ({}, 1001, "policy.rounds"),
        ],
    )
    def test_a_server_cannot_ask_for_more_than_the_site_allows(self, training, rounds, code):
        with pytest.raises(PolicyError) as refused:
            check_limits(task_with(training), RECEIVED, RoundRequest(1, rounds, 0), TrainingLimits())
        assert refused.value.code == code
        assert refused.value.measured > refused.value.allowed
        check_limits(task_with({"epochs": 20, "batch_size": 64}), RECEIVED, RoundRequest(1, 1000, 0), TrainingLimits())

    def test_a_model_larger_than_the_limit_is_refused(self):
        with pytest.raises(PolicyError, match=r"policy\.message-size"):
            check_limits(task_with({}), RECEIVED, RoundRequest(1, 1, 0), TrainingLimits(message_bytes=19))


def any_rules() -> st.SearchStrategy[PrivacyRules]:
    bound = st.none() | st.floats(1e-3, 1e6)
    plain = {
        "minimum_cases": st.integers(1, 100),
        "norm_bound": bound,
        "decimals": st.integers(0, 6),
        "metrics": st.sets(st.sampled_from(METRICS)).map(lambda some: tuple(n for n in METRICS if n in some)),
    }
    noisy = {"clip_norm": st.floats(1e-3, 1e6), "noise_multiplier": st.floats(0.01, 1e4), "epsilon_limit": bound}
    return st.builds(PrivacyRules, **plain) | st.builds(PrivacyRules, **plain, **noisy)


class TestPolicyFile:
    def test_it_is_private_and_comes_back(self, tmp_path):
        policy = SitePolicy(privacy=PrivacyRules(clip_norm=1.0, noise_multiplier=2.0, epsilon_limit=8.0))
        write_policy(tmp_path / "policy.json", policy)
        assert read_policy(tmp_path / "policy.json") == policy
        assert (tmp_path / "policy.json").stat().st_mode & 0o077 == 0

    @given(
        content=st.binary(max_size=200)
        | st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        ["privacy", "limits", "minimum_cases", "clip_norm", "epochs", "noise_multiplier", "metrics"]
                    ),
                    inner,
                )
            ),
        ).map(lambda value: json.dumps(value).encode())
    )
    def test_every_file_gives_a_policy_or_a_coded_error(self, tmp_path_factory, content):
        file = tmp_path_factory.mktemp("policy") / "policy.json"
        file.write_bytes(content)
        with contextlib.suppress(BadInputError):
            assert policy_words(read_policy(file))
            return
        with pytest.raises(BadInputError, match=r"policy\.invalid"):
            read_policy(file)

    def test_a_missing_or_giant_file_is_a_coded_error(self, tmp_path):
        with pytest.raises(BadInputError, match=r"policy\.unreadable"):
            read_policy(tmp_path / "none.json")
        (tmp_path / "giant.json").write_bytes(b" " * 70_000 + b"{}")
        with pytest.raises(BadInputError, match=r"policy\.invalid"):
            read_policy(tmp_path / "giant.json")

    def test_the_words_tell_the_numbers(self):
        rules = PrivacyRules(minimum_cases=9, clip_norm=0.25, noise_multiplier=1.75, epsilon_limit=6.5, metrics=())
        told = " ".join(policy_words(SitePolicy(privacy=rules, limits=TrainingLimits(epochs=17))))
        for words in ("fewer than 9 patients", "0.25", "1.75", "6.5", "No metric leaves", "17 epochs"):
            assert words in told
        assert "differential privacy is not claimed" in " ".join(policy_words(SitePolicy()))


class TestPayload:
    def test_the_hash_changes_with_every_part(self):
        def content(name="w", value=1.0, text="{}") -> RecordDict:
            array = to_record({name: np.array([value], np.float32)})
            return RecordDict({"model": array, "report": ConfigRecord({"json": text})})

        hashes = {payload_of(c).sha256 for c in (content(), content("v"), content(value=2.0), content(text="{ }"))}
        assert len(hashes) == 4
        assert payload_of(content()) == payload_of(content())
        # a safetensors file: 8 bytes of length, the header padded to a multiple of 8, one float32; and the text's two
        header = len('{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}')
        assert (payload_of(content()).tensors, payload_of(content()).bytes) == (1, 8 + -(-header // 8) * 8 + 4 + 2)

    def test_the_result_as_sent_can_be_weighed(self):
        payload = payload_of(write_result(RESULT, 1))
        assert payload.tensors == 3
        assert payload.bytes > sum(array.nbytes for array in RESULT.weights.values())
