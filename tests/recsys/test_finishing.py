from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

from tasks.recsys import finishing
from tasks.recsys.calibration import Calibration
from tasks.recsys.finishing import Finish, HeldOut, Known
from tasks.recsys.item_features import ItemFeatures, drawn
from tasks.recsys.sequences import Windows
from tasks.recsys.two_tower import TwoTower
from tests.recsys.made import views

ITEMS, USERS = 400, 200
FIRST_HALF = (np.arange(ITEMS) < ITEMS // 2).astype(np.float32)
FACTS = {"freshness": -FIRST_HALF, "unavailable": FIRST_HALF}
"""Name → [items]: the first half is what nobody wants any more."""
NOTHING = {name: np.zeros(ITEMS, dtype=np.float32) for name in FACTS}


def fitted() -> TwoTower:
    """A model to which all items are as good as alike."""
    torch.manual_seed(1)
    model = TwoTower(ITEMS, 8, 4, heads=2)
    with torch.no_grad():
        model.log_temperature.fill_(3.0)
    return model


def held_out(low: int, high: int) -> HeldOut:
    """Everybody has met one item, and goes on to one of low … high − 1."""
    rng = np.random.default_rng(0)
    asked = np.full((USERS, 4), -1, dtype=np.int32)
    asked[:, 0] = rng.integers(0, ITEMS, USERS)
    target = rng.integers(low, high, USERS).astype(np.int32)
    return HeldOut(Windows(asked, np.zeros_like(asked, dtype=np.int8)), target)


def with_a_kind() -> TwoTower:
    """A model in which the first 150 items are of a kind, and the others more popular, some more than others."""
    torch.manual_seed(1)
    model = TwoTower(ITEMS, 8, 4, heads=2)
    with torch.no_grad():
        model.item.weight[:150, [0, 8]] += 3
        model.bias.weight[150:] += 3 * torch.rand(ITEMS - 150, 1)
    return model


def going_on(of_a_kind: float, users: int) -> HeldOut:
    """Half of the users have met an item of the kind; these go on to another with such a chance."""
    rng, met = np.random.default_rng(0), np.arange(users) % 2 == 0
    asked = np.full((users, 4), -1, dtype=np.int32)
    asked[:, 0] = np.where(met, rng.integers(0, 150, users), rng.integers(150, ITEMS, users))
    share = np.exp(with_a_kind().bias.weight.detach().double().numpy()[150:, 0])
    popular = 150 + rng.choice(ITEMS - 150, users, p=share / share.sum())
    target = np.where(met & (rng.random(users) < of_a_kind), rng.integers(0, 150, users), popular)
    return HeldOut(Windows(asked, np.zeros_like(asked, dtype=np.int8)), target.astype(np.int32))


@pytest.mark.parametrize("name", FACTS)
def test_a_fact_counts_as_far_as_held_out_users_let_it(name: str) -> None:
    known = Known(None, NOTHING | {name: FACTS[name]})
    ways = {"away": held_out(ITEMS // 2, ITEMS), "to": held_out(0, ITEMS // 2), "anywhere": held_out(0, ITEMS)}
    found = {way: finishing.choose(fitted, known, held).calibration for way, held in ways.items()}
    weights = {way: one.weights[name] * float(FACTS[name][0]) for way, one in found.items() if one}
    assert weights["away"] < -0.5 and abs(weights["anywhere"]) < 0.2 and weights["to"] > 0.5
    assert all(not one.weights[other] for one in found.values() if one for other in FACTS if other != name)


def test_without_a_user_to_ask_a_fit_stays_as_it_is() -> None:
    nobody = HeldOut(Windows(np.zeros((0, 4), dtype=np.int32), np.zeros((0, 4), dtype=np.int8)), np.zeros(0, np.int32))
    finish = finishing.choose(fitted, Known(None, FACTS), nobody)
    before, after = fitted().state_dict(), finish.apply(fitted(), Known(None, FACTS)).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(("of_a_kind", "all_of_it"), [(1.0, False), (0.0, True)])
def test_what_is_learned_among_the_best_counts_as_far_as_lists_find_more_by_it(
    of_a_kind: float, all_of_it: bool
) -> None:
    """Of those who met one of the 150 items of a kind, so many go on to any of these; all others go by popularity.

    The hundred best of somebody who met one of a kind are all of it, so among these likeness says nothing.
    """
    held = going_on(of_a_kind, 1_500)
    found = finishing.choose(with_a_kind, Known(None, {}), held).calibration
    assert found is not None and (found.share == 1.0) is all_of_it
    recalls = [
        held.recalls(Finish(0.0, replace(found, share=one)).apply(with_a_kind(), Known(None, {}))).mean()
        for one in (1.0, found.share)
    ]
    assert recalls[1] >= recalls[0]


def test_a_finish_draws_prefers_and_calibrates() -> None:
    met = np.arange(ITEMS, dtype=np.int64)
    features = ItemFeatures(sparse.csr_array(np.tile(np.eye(4, dtype=np.float32), (ITEMS // 4, 1))), met)
    shifts = {name: np.full(one.shape, 0.25, dtype=np.float32) for name, one in fitted().dense.items()}
    further = {name: 2 * shift for name, shift in shifts.items()}
    calibration = Calibration(shifts, further, {"freshness": 0.5, "unavailable": -1.0}, share=0.5)
    found = Finish(10.0, calibration).apply(fitted(), Known(features, FACTS))
    assert np.array_equal(found.item.weight.detach(), drawn(fitted().item.weight.detach().numpy(), features, 10.0))
    assert (found.bias.weight[0] * found.log_popularity.exp()).item() == pytest.approx(-0.5 - 1)
    assert found.bias.weight[-1].item() == 0
    assert torch.equal(found.repeat.detach(), fitted().repeat.detach() + 0.25 + 0.5 * 0.5)


def test_the_same_finish_again_gives_the_same_bytes() -> None:
    known, held = Known(None, FACTS), held_out(0, ITEMS)
    one, two = (finishing.choose(fitted, known, held).apply(fitted(), known).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_model_is_judged_by_what_the_headline_counts_and_by_what_the_ranker_is_given() -> None:
    """Popularity alone, a user a target: 1 for 50 items, ½ for 250, 0 for 100."""
    model = fitted()
    with torch.no_grad():
        model.item.weight.zero_()
        model.bias.weight[:ITEMS, 0] = torch.arange(float(ITEMS), 0, -1) / 10
    asked = np.array([0, -1, -1, -1], dtype=np.int32) + np.zeros((ITEMS, 1), dtype=np.int32)  # all met the first one
    held = HeldOut(Windows(asked, np.zeros_like(asked, dtype=np.int8)), np.arange(ITEMS, dtype=np.int32))
    recalls = held.recalls(model)
    assert np.unique(recalls, return_counts=True)[1].tolist() == [100, 250, 50]
    assert recalls.mean() == 175 / 400


def test_held_out_users_are_asked_for_their_last_item_from_what_came_before() -> None:
    """User 0 meets item 2, which nobody knew, on the way; user 1 came back to nothing after the cut."""
    interactions = views((0, 0, 1), (1, 1, 2), (1, 0, 3), (0, 2, 11), (0, 1, 12), (0, 3, 30))
    held = finishing.held_out(interactions, 10 * 86_400_000, 20 * 86_400_000, 3)
    assert held.target.tolist() == [1]
    assert held.asked.item.tolist() == [[0, 2, -1]]


def test_a_target_that_nobody_knew_can_be_answered_if_it_was_met_on_the_way() -> None:
    interactions = views((0, 0, 1), (0, 2, 11), (0, 1, 12), (0, 2, 13), (1, 0, 2), (1, 2, 14))
    asked, target = finishing.held_out(interactions, 10 * 86_400_000, 20 * 86_400_000, 3).answerable(2)
    assert (asked.item.tolist(), target.tolist()) == ([[0, 2, 1]], [2])
