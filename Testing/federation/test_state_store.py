"""A group's state on disk: whole or not there, whatever moment the server dies."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from FedSegCore.common.errors import BadInputError
from FedSegCore.federation import state_store
from FedSegCore.federation.array_files import FolderSiteStore, LazyArrays, save_arrays
from FedSegCore.federation.messages import SiteIntroduction
from FedSegCore.federation.state_store import GroupState, GroupStateStore, Member, SiteRound


def model(value):
    return {"w": np.full((2, 3), value, np.float32).T, "n": np.asarray(7, np.int64)}


def member(site):
    return Member(
        introduction=SiteIntroduction(
            site=site, modality="CT", training_cases=3, validation_cases=1, fingerprint="0" * 64
        ),
        rounds_answered=2,
    )


def state(number, value):
    return GroupState("CT", number, model(value), {"m": np.ones(2)}, {}, {"a": member("a"), "b": member("b")}, ("a",))


def own_models(value):
    return lambda site: {"a": model(value)}[site]


def rows(number):
    return [SiteRound(round_number=number, site="a", loss=0.5), SiteRound(round_number=number, site="b", code="x.y")]


def test_what_was_saved_is_loaded(tmp_path):
    store = GroupStateStore(tmp_path)
    assert store.load("CT") is None
    assert store.groups() == ()
    store.save(state(1, 1.5), own_models(2.5), rows(1))
    for loaded in (store.load("CT"), GroupStateStore(tmp_path).load("CT")):
        assert_array_equal(loaded.model["w"], model(1.5)["w"])
        assert loaded.model["n"] == 7
        assert loaded.model["n"].shape == ()
        assert_array_equal(loaded.rule_state["m"], np.ones(2))
        assert list(loaded.site_models) == ["a"]
        assert_array_equal(loaded.site_models["a"]["w"], model(2.5)["w"])
        assert loaded.members == state(1, 0).members
        assert (loaded.round_number, loaded.answered) == (1, ("a",))
    assert store.history("CT", 1) == tuple(rows(1))
    assert store.history("CT", 0) == ()


@pytest.mark.parametrize("broken", ["write_json", "whole_folder", "write_text"])
def test_a_server_that_dies_while_saving_keeps_the_round_before(tmp_path, monkeypatch, broken):
    store = GroupStateStore(tmp_path)
    store.save(state(1, 1.0), None, rows(1))

    def die(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(state_store, broken, die)
        with pytest.raises(KeyboardInterrupt):
            store.save(state(2, 2.0), None, rows(2))
    loaded = GroupStateStore(tmp_path).load("CT")
    assert loaded.round_number == 1
    assert_array_equal(loaded.model["w"], model(1.0)["w"])
    assert [row.round_number for row in store.history("CT", 1)] == [1, 1]
    # and the same round can be saved again
    store.save(state(2, 2.5), None, rows(2))
    assert_array_equal(store.load("CT").model["w"], model(2.5)["w"])
    assert [row.round_number for row in store.history("CT", 2)] == [1, 1, 2, 2]


def test_an_unreadable_state_is_said(tmp_path):
    store = GroupStateStore(tmp_path)
    store.save(state(1, 1.0), None, rows(1))
    (tmp_path / "CT" / "round-000001" / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(BadInputError, match=r"federation\.state-unreadable"):
        store.load("CT")


def test_site_store_reads_one_tensor_at_a_time(tmp_path):
    store = FolderSiteStore(tmp_path / "working")
    store["a"] = model(1.0)
    store["b"] = model(2.0)
    store["a"] = model(3.0)
    assert sorted(store) == ["a", "b"]
    assert isinstance(store["a"], LazyArrays)
    assert_array_equal(store["a"]["w"], model(3.0)["w"])
    with pytest.raises(KeyError):
        store["a"]["unknown"]
    store.remove()
    assert len(store) == 0
    assert not (tmp_path / "working").exists()


def test_arrays_in_any_memory_order_come_back_as_they_were(tmp_path):
    array = np.arange(6).reshape(2, 3).T[:, ::-1]
    save_arrays(tmp_path / "a.safetensors", {"x": array})
    assert_array_equal(LazyArrays(tmp_path / "a.safetensors")["x"], array)
