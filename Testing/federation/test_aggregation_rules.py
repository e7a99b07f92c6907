"""Every rule against values worked out by hand or with plain NumPy."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from FedSegCore.common.errors import BadInputError
from FedSegCore.federation.aggregation.fedavg import FedAvg
from FedSegCore.federation.aggregation.fedgs import FedGs
from FedSegCore.federation.aggregation.flames import Flames
from FedSegCore.federation.aggregation.registry import build_rule, rule_names
from FedSegCore.federation.aggregation.robust import Krum, Median, TrimmedMean
from FedSegCore.federation.aggregation.rule import SiteUpdate
from FedSegCore.federation.config import AggregationConfig

STATISTICS = "norm.running_mean"


def model(value: float, counter: int = 0, dtype=np.float32) -> dict[str, np.ndarray]:
    return {"w": np.full((2, 2), value, dtype), "counter": np.asarray(counter, np.int64)}


def update(site: str, value: float, n: int, steps: int = 1, counter: int = 0, **more) -> SiteUpdate:
    return SiteUpdate(site, model(value, counter), n, steps, **more)


def run(rule, updates, group=None, state=None):
    rule.begin(group if group is not None else model(0.0), state or {}, {})
    for one in updates:
        rule.fold(one)
    return rule.finish()


def w(arrays) -> float:
    """The single value of a constant tensor."""
    assert len(np.unique(arrays["w"])) == 1
    return float(arrays["w"].flat[0])


class TestFedAvg:
    def test_unequal_sizes(self):
        # (1*10 + 5*30) / 40
        made = run(FedAvg(), [update("a", 1.0, 10), update("b", 5.0, 30)])
        assert w(made.group_model) == 4.0
        assert made.site_model is None

    def test_equal_sizes_one_site_and_weightings(self):
        two = [update("a", 1.0, 10, steps=9), update("b", 5.0, 30, steps=1)]
        assert w(run(FedAvg("equal"), two).group_model) == 3.0
        # (1*9 + 5*1) / 10
        assert w(run(FedAvg("steps"), two).group_model) == pytest.approx(1.4)
        assert w(run(FedAvg(), two[:1]).group_model) == 1.0

    @pytest.mark.parametrize("weighting", ["examples", "steps", "equal"])
    def test_a_site_without_examples_weighs_nothing(self, weighting):
        made = run(FedAvg(weighting), [update("a", 1.0, 0, steps=4), update("b", 5.0, 3, steps=4, counter=7)])
        assert w(made.group_model) == 5.0
        assert made.group_model["counter"] == 7

    def test_nobody_or_only_empty_sites_leave_the_model(self):
        assert w(run(FedAvg(), [], model(2.5)).group_model) == 2.5
        assert w(run(FedAvg(), [update("a", 9.0, 0)], model(2.5)).group_model) == 2.5

    def test_counters_come_from_the_site_with_most_examples_and_keep_their_type(self):
        made = run(FedAvg(), [update("a", 1.0, 10, counter=100), update("b", 2.0, 20, counter=201)])
        assert made.group_model["counter"] == 201
        assert made.group_model["counter"].dtype == np.int64
        # of equals, the first by name, whoever comes first
        for order in ([0, 1], [1, 0]):
            two = [update("a", 1.0, 10, counter=1), update("b", 2.0, 10, counter=2)]
            assert run(FedAvg(), [two[i] for i in order]).group_model["counter"] == 1

    def test_dtypes_stay_and_names_keep_the_models_order(self):
        group = {"h": np.zeros(3, np.float16), "d": np.zeros(3, np.float64), "f": np.zeros(3, np.float32)}
        weights = {"f": np.ones(3, np.float32), "d": np.ones(3, np.float64), "h": np.ones(3, np.float16)}
        made = run(FedAvg(), [SiteUpdate("a", weights, 1)], group).group_model
        assert {name: array.dtype for name, array in made.items()} == {n: a.dtype for n, a in group.items()}
        assert list(made) == ["h", "d", "f"]

    def test_sums_do_not_lose_small_sites_to_rounding(self):
        # 1000 sites of 1 + 1e-4·i in float32, weighed by i + 1: the exact mean to float32's last digit
        values = np.float32(1.0) + np.float32(1e-4) * np.arange(1000, dtype=np.float32)
        made = run(FedAvg(), [update(f"s{i}", value, i + 1) for i, value in enumerate(values)])
        exact = np.average(values.astype(np.float64), weights=np.arange(1, 1001))
        assert np.float32(w(made.group_model)) == np.float32(exact)

    def test_a_second_answer_and_foreign_tensors_are_refused_and_change_nothing(self):
        rule = FedAvg()
        rule.begin(model(0.0), {}, {})
        rule.fold(update("a", 1.0, 10))
        with pytest.raises(ValueError, match="already"):
            rule.fold(update("a", 100.0, 10))
        with pytest.raises(ValueError, match="tensors"):
            rule.fold(SiteUpdate("b", {"other": np.ones(2, np.float32)}, 10))
        assert w(rule.finish().group_model) == 1.0

    def test_begin_forgets_the_former_round(self):
        rule = FedAvg()
        run(rule, [update("a", 1.0, 10)])
        assert w(run(rule, [update("a", 3.0, 10)]).group_model) == 3.0


class TestFlames:
    def test_three_sites_by_hand(self):
        # n = 1, 2, 4 → 1/n = 1, 1/2, 1/4; N = 3 → α = 0.1 + 1/3 = 13/30
        made = run(Flames(), [update("a", 3.0, 1), update("b", 6.0, 2), update("c", 12.0, 4)])
        alpha = 0.1 + 1 / 3
        others_of_a = (6.0 * 0.5 + 12.0 * 0.25) / 0.75
        others_of_b = (3.0 * 1.0 + 12.0 * 0.25) / 1.25
        others_of_c = (3.0 * 1.0 + 6.0 * 0.5) / 1.5
        for site, own, others in (("a", 3.0, others_of_a), ("b", 6.0, others_of_b), ("c", 12.0, others_of_c)):
            assert w(made.site_model(site)) == pytest.approx(alpha * own + (1 - alpha) * others, rel=1e-6)
        assert w(made.group_model) == 7.0

    @pytest.mark.parametrize(("sizes", "others"), [("inverse", 10.0), ("equal", 9.0), ("direct", 8.0)])
    def test_size_weights(self, sizes, others):
        # the others of a: 12 with n = 1 and 6 with n = 2, weighed 2:1 (inverse), 1:1, 1:2 (direct)
        three = [update("a", 99.0, 5), update("b", 12.0, 1), update("c", 6.0, 2)]
        made = run(Flames(alpha=0.0, sizes=sizes), three)
        assert w(made.site_model("a")) == pytest.approx(others)

    def test_a_lone_site_gets_its_own_model_back(self):
        made = run(Flames(), [update("a", 3.25, 7, counter=5)])
        assert w(made.site_model("a")) == w(made.group_model) == 3.25
        assert made.site_model("a")["counter"] == 5
        # whatever α says
        assert w(run(Flames(alpha=0.2), [update("a", 3.25, 7)]).site_model("a")) == 3.25

    def test_alpha_is_capped_at_one(self):
        rule = Flames(alpha_offset=0.9)
        run(rule, [update("a", 1.0, 1), update("b", 3.0, 1)])
        assert rule.alpha() == 1.0

    def test_a_site_without_examples_weighs_nothing_and_gets_the_others(self):
        made = run(Flames(alpha=0.25), [update("a", 100.0, 0), update("b", 2.0, 3), update("c", 4.0, 3)])
        assert w(made.group_model) == 3.0
        assert w(made.site_model("b")) == pytest.approx(0.25 * 2.0 + 0.75 * 4.0)
        assert w(made.site_model("a")) == pytest.approx(0.25 * 100.0 + 0.75 * 3.0)

    def test_only_a_sites_own_model_and_only_for_sites_that_answered(self):
        made = run(Flames(), [update("a", 1.0, 1, counter=1), update("b", 2.0, 1, counter=2)])
        assert made.site_model("b")["counter"] == 2
        with pytest.raises(KeyError):
            made.site_model("c")

    def test_a_group_model_of_one_site_is_marked(self):
        two = [update("a", 1.0, 1), update("b", 2.0, 1)]
        assert not run(Flames(), two).alone
        assert run(Flames(), two[:1]).alone
        assert run(Flames(), [two[0], update("b", 9.0, 0)]).alone

    def test_a_round_in_which_nobody_trained_makes_no_models(self):
        for sent in ([], [update("a", 9.0, 0)]):
            made = run(Flames(), sent, model(2.5))
            assert w(made.group_model) == 2.5
            with pytest.raises(KeyError):
                made.site_model("a")

    def test_updates_wait_in_the_store_not_in_memory(self):
        store = {}
        rule = Flames()
        rule.begin(model(0.0), {}, store)
        rule.fold(update("a", 1.0, 1))
        rule.fold(update("b", 3.0, 1))
        assert set(store) == {"a", "b"}
        store["a"] = model(11.0)
        # the mix reads the store: α·11 + (1−α)·(T − 11)/1 with T = 1 + 3
        assert w(rule.finish().site_model("a")) == pytest.approx(0.6 * 11.0 + 0.4 * (4.0 - 11.0))

    def test_with_fedgs_updates(self):
        # received 10, moved by −C: a → 10 − 1 = 9, b → 10 − 3 = 7, whatever weights were sent
        two = [
            SiteUpdate("a", model(50.0), 1, 1, {"fedgs/w": np.full((2, 2), 1.0, np.float32)}, model(10.0)),
            SiteUpdate("b", model(60.0), 1, 1, {"fedgs/w": np.full((2, 2), 3.0, np.float32)}, model(10.0)),
        ]
        made = run(Flames(update="fedgs"), two)
        assert w(made.group_model) == 8.0
        assert w(made.site_model("a")) == pytest.approx(0.6 * 9.0 + 0.4 * 7.0)
        with pytest.raises(ValueError, match="accumulated"):
            run(Flames(update="fedgs"), [update("a", 1.0, 1)])


class TestFedGs:
    @staticmethod
    def one(site, change, steps, n=10, sent=0.0, statistics=0.0):
        weights = {**model(sent), STATISTICS: np.full(2, statistics, np.float32)}
        return SiteUpdate(site, weights, n, steps, {"fedgs/w": np.full((2, 2), change, np.float32)})

    @property
    def group(self):
        return {**model(10.0), STATISTICS: np.zeros(2, np.float32)}

    def test_step_weighted_update_of_the_group_model(self):
        # 10 − (1/4·4 + 3/4·8) = 3; running statistics (1·1 + 3·5)/4 = 4
        two = [self.one("a", 4.0, 1, statistics=1.0), self.one("b", 8.0, 3, statistics=5.0)]
        made = run(FedGs(), two, self.group)
        assert w(made.group_model) == 3.0
        assert_array_equal(made.group_model[STATISTICS], np.full(2, 4.0, np.float32))
        assert made.rule_state == {}

    def test_momentum_over_two_rounds(self):
        # v1 = 2, w = 8; v2 = 0.5·2 + 2 = 3, w = 5
        first = run(FedGs(momentum=0.5), [self.one("a", 2.0, 1)], self.group)
        second = run(FedGs(momentum=0.5), [self.one("a", 2.0, 1)], first.group_model, first.rule_state)
        assert w(first.group_model) == 8.0
        assert w(second.group_model) == 5.0

    def test_sites_without_examples_or_steps_weigh_nothing(self):
        three = [self.one("a", 4.0, 5, n=0), self.one("b", 1.0, 2), self.one("c", 7.0, 0)]
        assert w(run(FedGs(), three, self.group).group_model) == 9.0
        assert w(run(FedGs(), three[2:], self.group).group_model) == 10.0

    def test_unusable_extras_are_refused_whole(self):
        rule = FedGs()
        rule.begin(self.group, {}, {})
        rule.fold(self.one("a", 4.0, 1))
        for extras in (
            {},
            {"fedgs/unknown": np.zeros((2, 2), np.float32)},
            {"fedgs/w": np.zeros(3, np.float32)},
            {"fedgs/counter": np.zeros((), np.int64)},
            {"fedgs/w": np.zeros((2, 2), np.float32), f"fedgs/{STATISTICS}": np.zeros(2, np.float32)},
        ):
            with pytest.raises(ValueError, match="accumulated update"):
                rule.fold(SiteUpdate("b", self.group, 10, 1, extras))
        assert w(rule.finish().group_model) == 6.0


class TestRobustRules:
    five = tuple(update("abcde"[i], value, 10, counter=i) for i, value in enumerate((1, 2, 3, 4, 1000)))

    def test_median(self):
        assert w(run(Median(), self.five).group_model) == 3.0
        assert w(run(Median(), self.five[:4]).group_model) == 2.5
        assert w(run(Median(), [*self.five[:3], update("z", 1e9, 0)]).group_model) == 2.0

    def test_trimmed_mean(self):
        # one cut at each end: mean of 2, 3, 4
        assert w(run(TrimmedMean(0.2), self.five).group_model) == 3.0
        # ⌊0.2·4⌋ = 0 cut
        assert w(run(TrimmedMean(0.2), self.five[:4]).group_model) == 2.5

    def test_krum(self):
        # f = 1, N = 5: sum of the 2 smallest squared distances. Over 4 equal values each distance counts 4 times:
        # a: 1+4, b: 1+1, c: 1+1, d: 1+4 → b and c tie, b is first
        made = run(Krum(malicious=1), self.five)
        assert w(made.group_model) == 2.0
        assert made.group_model["counter"] == 1
        assert w(run(Krum(), self.five[4:]).group_model) == 1000.0

    @pytest.mark.parametrize("spoilt", [np.nan, np.inf])
    def test_krum_leaves_out_what_is_no_number(self, spoilt):
        for rule in (Krum(malicious=1), build_rule(FLOWER_KRUM)):
            five = [update("abcde"[i], value, 10) for i, value in enumerate((1.0, 9.0, 1.1, 1.2, 1.3))]
            five[1].weights["w"][0, 1] = spoilt
            assert w(run(rule, five).group_model) in (np.float32(1.1), np.float32(1.2))

    def test_krum_against_plain_numpy(self):
        generator = np.random.default_rng(3)
        points = generator.normal(size=(7, 4)).astype(np.float32)
        updates = [
            SiteUpdate(f"s{i}", {"w": p.reshape(2, 2), "counter": np.asarray(0)}, 5) for i, p in enumerate(points)
        ]
        distances = ((points[:, None].astype(np.float64) - points[None]) ** 2).sum(-1)
        scores = np.sort(distances, axis=1)[:, 1 : 1 + 7 - 2 - 2].sum(axis=1)
        made = run(Krum(malicious=2), updates)
        assert_array_equal(made.group_model["w"].ravel(), points[np.argmin(scores)])


class TestBatchNorm:
    @staticmethod
    def norm_model(conv: float, mean: float, tracked: int = 0):
        return {
            "conv.weight": np.full(2, conv, np.float32),
            "bn.weight": np.full(2, mean + 1, np.float32),
            "bn.running_mean": np.full(2, mean, np.float32),
            "bn.num_batches_tracked": np.asarray(tracked, np.int64),
        }

    def begun(self, policy, rule="fedavg", state=None):
        options = {} if policy is None else {"batch_norm": policy}
        made = build_rule(AggregationConfig(rule=rule, options=options))
        made.begin(self.norm_model(0.0, 0.0), state or {}, {})
        return made

    def test_must_be_said(self):
        with pytest.raises(BadInputError) as refused:
            self.begun(None)
        assert refused.value.code == "federation.batch-norm-policy"

    def test_share(self):
        rule = self.begun("share")
        rule.fold(SiteUpdate("ct", self.norm_model(1.0, 10.0, 3), 1))
        rule.fold(SiteUpdate("mr", self.norm_model(2.0, 30.0, 5), 3))
        made = rule.finish().group_model
        assert_array_equal(made["bn.running_mean"], np.full(2, 25.0, np.float32))
        assert made["bn.num_batches_tracked"] == 5

    @pytest.mark.parametrize("rule_name", ["fedavg", "flames"])
    def test_local_gives_every_site_its_own_back_and_remembers_absent_ones(self, rule_name):
        rule = self.begun("local", rule_name)
        rule.fold(SiteUpdate("ct", self.norm_model(1.0, 10.0, 3), 1))
        rule.fold(SiteUpdate("mr", self.norm_model(2.0, 30.0, 5), 1))
        made = rule.finish()
        ct = made.site_model("ct")
        for name in ("bn.weight", "bn.running_mean", "bn.num_batches_tracked"):
            assert_array_equal(ct[name], self.norm_model(1.0, 10.0, 3)[name])
        assert_allclose(made.group_model["conv.weight"], 1.5)
        # the next round, with mr away
        rule.begin(made.group_model, made.rule_state, {})
        rule.fold(SiteUpdate("ct", self.norm_model(5.0, 11.0, 4), 1))
        later = rule.finish()
        if rule_name == "fedavg":
            assert_array_equal(later.site_model("mr")["bn.running_mean"], np.full(2, 30.0, np.float32))
            assert_allclose(later.site_model("mr")["conv.weight"], 5.0)
        else:
            # it has a mix from the round before, which the group keeps
            with pytest.raises(KeyError):
                later.site_model("mr")
        assert_array_equal(later.site_model("ct")["bn.running_mean"], np.full(2, 11.0, np.float32))
        with pytest.raises(KeyError):
            later.site_model("stranger")


FLOWER_KRUM = AggregationConfig(rule="flower", options={"strategy": "Krum", "arguments": {"num_malicious_nodes": 1}})
RULES = [AggregationConfig(rule=name) for name in rule_names() if name != "flower"]
RULES += [AggregationConfig(rule="flower", options={"strategy": name}) for name in ("FedAvg", "FedMedian", "Krum")]


def rule_name(config):
    return config.options.get("strategy", config.rule)


MIXED = {"h": np.float16, "f": np.float32, "d": np.float64, "i": np.int64, "b": np.bool_}


class TestMixedTypes:
    @pytest.mark.parametrize("config", RULES, ids=rule_name)
    def test_every_rule_keeps_every_tensors_type_and_averages_floats_only(self, config):
        """Two sites far apart in what is not a float: nothing between them may come out."""

        def sent(site, value, n):
            weights = {key: np.full(3, value, kind) for key, kind in MIXED.items()}
            extras = {f"fedgs/{key}": np.full(3, -value, kind) for key, kind in MIXED.items() if key in "hfd"}
            return SiteUpdate(site, weights, n, 1, extras)

        group = {key: np.zeros(3, kind) for key, kind in MIXED.items()}
        made = run(build_rule(config), [sent("a", 2, 5), sent("b", 7, 9)], group)
        models = [made.group_model, *([made.site_model("a"), made.site_model("b")] if made.site_model else [])]
        for one in models:
            assert {key: array.dtype for key, array in one.items()} == {k: np.dtype(kind) for k, kind in MIXED.items()}
            assert set(one["i"].tolist()) in ({2}, {7})
            assert one["b"].all()
            for key in "hfd":
                assert 2.0 <= float(one[key][0]) <= 7.0
                assert float(one[key][0]) == pytest.approx(float(one["d"][0]), rel=1e-3)

    @pytest.mark.parametrize("config", [one for one in RULES if rule_name(one).lower() != "krum"], ids=rule_name)
    def test_a_value_that_is_no_number_stays_where_it_is(self, config):
        """The server refuses such answers; a rule that met one all the same would spread it to no other value."""

        def sent(site, value):
            weights = {"w": np.full(4, value, np.float32)}
            if site == "b":
                weights["w"][2] = np.nan
            return SiteUpdate(site, weights, 5, 1, {"fedgs/w": -weights["w"]})

        updates = [sent("a", 1.0), sent("b", 3.0), sent("c", 5.0)]
        made = run(build_rule(config), updates, {"w": np.zeros(4, np.float32)})
        assert np.isnan(made.group_model["w"]).tolist() == [False, False, True, False]
        assert_allclose(made.group_model["w"][[0, 1, 3]], 3.0)


class TestRegistry:
    @pytest.mark.parametrize("config", RULES, ids=rule_name)
    def test_every_rule_folds_one_site(self, config):
        rule = build_rule(config)
        extras = {"fedgs/w": np.full((2, 2), 1.0, np.float32)}
        made = run(rule, [SiteUpdate("a", model(4.0), 5, 1, extras)], model(5.0))
        assert w(made.group_model) == 4.0

    @pytest.mark.parametrize(
        ("rule", "options", "code"),
        [
            ("fedsomething", {}, "federation.rule-unknown"),
            ("fedavg", {"alpha": 0.5}, "federation.rule-options"),
            ("flames", {"alpha": 1.5}, "federation.rule-options"),
            ("flames", {"sizes": "big"}, "federation.rule-options"),
            ("fedgs", {"momentum": 1.0}, "federation.rule-options"),
            ("trimmed_mean", {"beta": 0.5}, "federation.rule-options"),
            ("flower", {}, "federation.rule-options"),
            ("flower", {"strategy": "os"}, "federation.rule-options"),
            ("flower", {"strategy": "FedAdam", "arguments": {"min_train_nodes": 1}}, "federation.rule-options"),
            ("flower", {"strategy": "FedAvg", "clipping_norm": 1.0}, "federation.rule-options"),
        ],
    )
    def test_what_makes_no_rule_is_refused_in_words(self, rule, options, code):
        with pytest.raises(BadInputError) as refused:
            build_rule(AggregationConfig(rule=rule, options=options))
        assert refused.value.code == code
