import copy

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tasks.recsys import calibration, index
from tasks.recsys.interactions import Ints
from tasks.recsys.retrieval import Tower
from tasks.recsys.sequences import Windows
from tasks.recsys.two_tower import TwoTower

ITEMS = 50
FIRST_HALF = (np.arange(ITEMS) < ITEMS // 2).astype(np.float32)


def made(seed: int = 0, items: int = ITEMS) -> TwoTower:
    """A model that thinks little of repeats."""
    torch.manual_seed(seed)
    model = TwoTower(items, 8, 4, heads=2)
    with torch.no_grad():
        model.repeat.fill_(-2.0)
        model.log_temperature.fill_(-4.0)
    return model


def comebacks(users: int) -> tuple[Windows, Ints]:
    """Everybody sees three items and then the first of them again."""
    rng = np.random.default_rng(0)
    item = np.stack([rng.choice(ITEMS, 3, replace=False) for _ in range(users)]).astype(np.int32)
    return Windows(padded(item), np.zeros((users, 4), dtype=np.int8)), item[:, 0].copy()


def padded(item: Ints | npt.NDArray[np.int64]) -> Ints:
    """[users, length] → [users, 4]"""
    return np.pad(item.astype(np.int32), ((0, 0), (0, 4 - item.shape[1])), constant_values=-1)


def going_to(first: float, windows: int) -> tuple[Windows, Ints]:
    """From any one item, this share goes on to the first half of the items, and the others to the second."""
    rng = np.random.default_rng(0)
    target = rng.integers(0, ITEMS // 2, windows) + ITEMS // 2 * (rng.random(windows) >= first)
    asked = padded(rng.integers(0, ITEMS, (windows, 1)))
    return Windows(asked, np.zeros(asked.shape, dtype=np.int8)), target.astype(np.int32)


def first_rank(model: TwoTower, asked: Windows, target: Ints) -> float:
    """Mean place of the target."""
    found, _ = Tower(model, index.build(model.item_vectors().numpy())).answer(asked, ITEMS)
    return float(np.argmax(found == target[:, None], axis=1).mean())


def test_it_learns_from_held_out_windows_how_much_repeats_count() -> None:
    model, (asked, target) = made(), comebacks(400)
    before, tables = first_rank(model, asked, target), [one.detach().clone() for one in model.tables]
    shifts = calibration.calibrate(model, {}, asked, target).shifts
    assert first_rank(model, asked, target) < 0.5 * before
    assert float(shifts["repeat_event"][0]) > 0
    assert all(torch.equal(one, other) for one, other in zip(tables, model.tables, strict=True))
    assert all(one.requires_grad for one in model.tables) and not model.log_popularity.requires_grad


def test_repeats_of_items_that_are_new_to_the_model_speak_for_repeats_too() -> None:
    asked, target = comebacks(400)
    new = Windows(np.where(asked.item >= 0, asked.item + ITEMS, -1).astype(np.int32), asked.event)
    shifts = calibration.calibrate(made(), {}, new, target + np.int32(ITEMS)).shifts
    assert float(shifts["repeat_event"][0]) > 0


def test_few_windows_move_little() -> None:
    many, few = (
        sum(float((shift**2).sum()) for shift in calibration.calibrate(made(), {}, *comebacks(users)).shifts.values())
        for users in (400, 4)
    )
    assert 0 < few < 0.3 * many


def test_without_a_window_nothing_moves() -> None:
    nobody = Windows(np.zeros((0, 4), dtype=np.int32), np.zeros((0, 4), dtype=np.int8))
    found = calibration.calibrate(made(), {"fresh": np.ones(ITEMS, np.float32)}, nobody, np.zeros(0, dtype=np.int32))
    assert all(not shift.any() for shift in found.shifts.values())
    assert found.weights == {"fresh": 0.0}


@pytest.mark.parametrize("items", [300, calibration.SAMPLED + 1_000])
def test_popularity_keeps_its_worth_beside_likeness_that_tells_nothing(items: int) -> None:
    """Everybody goes on to an item by its popularity alone, of which the model knows the square root's log."""
    rng, share = np.random.default_rng(0), 1 / np.arange(1.0, items + 1)
    target = rng.choice(items, 4_000, p=share / share.sum()).astype(np.int32)
    asked = Windows(padded(rng.integers(0, items, (len(target), 1))), np.zeros((len(target), 4), dtype=np.int8))
    model = made(items=items)
    model.start(torch.from_numpy(np.sqrt(share / share[-1])) - 1)
    found = calibration.calibrate(model, {}, asked, target)
    assert np.exp(found.shifts["log_popularity"]) == pytest.approx(2, rel=0.15)
    assert (found.shifts["log_temperature"] > 0.5).all()


@pytest.mark.parametrize(("first", "weight"), [(0.8, np.log(4)), (0.2, -np.log(4))])
def test_a_fact_weighs_what_those_who_go_on_say(first: float, weight: float) -> None:
    model = made()
    with torch.no_grad():
        model.log_temperature.fill_(2.0)
    found = calibration.calibrate(model, {"fact": FIRST_HALF}, *going_to(first, 4_000))
    assert found.weights["fact"] == pytest.approx(weight, abs=0.15)


def test_a_fact_that_gains_nothing_beyond_chance_changes_no_byte() -> None:
    asked, target = going_to(0.5, 400)
    bare, told = (calibration.calibrate(made(), facts, asked, target) for facts in ({}, {"fact": FIRST_HALF}))
    assert told.weights == {"fact": 0.0}
    assert all(bare.shifts[name].tobytes() == told.shifts[name].tobytes() for name in bare.shifts)


def test_another_fit_is_calibrated_like_the_first() -> None:
    model, other, facts = made(), made(seed=1), {"fact": FIRST_HALF}
    before = copy.deepcopy(other)
    found = calibration.calibrate(model, facts, *going_to(0.9, 400))
    found.apply(other, facts)
    for name, one in other.dense.items():
        moved = one.detach() - before.dense[name].detach()
        assert torch.allclose(moved, torch.from_numpy(found.shifts[name]), atol=1e-6)
    scores = [one.bias.weight * one.log_popularity.exp() for one in (before, other)]
    said = found.weights["fact"] * torch.from_numpy(FIRST_HALF)
    assert found.weights["fact"] > 0 and torch.allclose(scores[1] - scores[0], said.unsqueeze(1), atol=1e-6)


def test_what_was_calibrated_answers_as_another_one_to_which_it_is_done() -> None:
    model, other, facts = made(), made(), {"fact": FIRST_HALF}
    calibration.calibrate(model, facts, *going_to(0.9, 400)).apply(other, facts)
    assert torch.allclose(model.item_vectors(), other.item_vectors(), atol=1e-5)


def test_same_windows_same_bytes() -> None:
    one, two = (calibration.calibrate(made(), {}, *comebacks(100)).shifts for _ in range(2))
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)
