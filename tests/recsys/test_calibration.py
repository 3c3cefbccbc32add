import copy

import numpy as np
import torch

from tasks.recsys import calibration, index
from tasks.recsys.interactions import Ints
from tasks.recsys.retrieval import Tower
from tasks.recsys.sequences import Windows
from tasks.recsys.two_tower import TwoTower

ITEMS = 50


def made(seed: int = 0) -> TwoTower:
    """A model that thinks little of repeats."""
    torch.manual_seed(seed)
    model = TwoTower(ITEMS, 8, 4, heads=2)
    with torch.no_grad():
        model.repeat.fill_(-2.0)
        model.log_temperature.fill_(-4.0)
    return model


def comebacks(users: int) -> tuple[Windows, Ints]:
    """Everybody sees three items and then the first of them again."""
    rng = np.random.default_rng(0)
    item = np.stack([rng.choice(ITEMS, 3, replace=False) for _ in range(users)]).astype(np.int32)
    padded = np.concatenate([item, np.full((users, 1), -1, dtype=np.int32)], axis=1)
    return Windows(padded, np.zeros(padded.shape, dtype=np.int8)), item[:, 0].copy()


def first_rank(model: TwoTower, asked: Windows, target: Ints) -> float:
    """Mean place of the target."""
    found, _ = Tower(model, index.build(model.item_vectors().numpy())).answer(asked, ITEMS)
    return float(np.argmax(found == target[:, None], axis=1).mean())


def test_it_learns_from_held_out_windows_how_much_repeats_count() -> None:
    model, (asked, target) = made(), comebacks(400)
    before, tables = first_rank(model, asked, target), [one.detach().clone() for one in model.tables]
    shifts = calibration.calibrate(model, asked, target)
    assert first_rank(model, asked, target) < 0.5 * before
    assert float(shifts["repeat_event"][0]) > 0
    assert all(torch.equal(one, other) for one, other in zip(tables, model.tables, strict=True))
    assert all(one.requires_grad for one in model.tables)


def test_repeats_of_items_that_are_new_to_the_model_speak_for_repeats_too() -> None:
    asked, target = comebacks(400)
    new = Windows(np.where(asked.item >= 0, asked.item + ITEMS, -1).astype(np.int32), asked.event)
    shifts = calibration.calibrate(made(), new, target + np.int32(ITEMS))
    assert float(shifts["repeat_event"][0]) > 0


def test_few_windows_move_little() -> None:
    many, few = (
        sum(float((shift**2).sum()) for shift in calibration.calibrate(made(), *comebacks(users)).values())
        for users in (400, 4)
    )
    assert 0 < few < 0.3 * many


def test_without_a_window_nothing_moves() -> None:
    nobody = Windows(np.zeros((0, 4), dtype=np.int32), np.zeros((0, 4), dtype=np.int8))
    shifts = calibration.calibrate(made(), nobody, np.zeros(0, dtype=np.int32))
    assert all(not shift.any() for shift in shifts.values())


def test_another_fit_is_shifted_like_the_first() -> None:
    model, other = made(), made(seed=1)
    before = copy.deepcopy(other)
    shifts = calibration.calibrate(model, *comebacks(100))
    calibration.shift(other, shifts)
    for name, one in other.dense.items():
        moved = one.detach() - before.dense[name].detach()
        assert torch.allclose(moved, torch.from_numpy(shifts[name]), atol=1e-6)


def test_same_windows_same_bytes() -> None:
    one, two = (calibration.calibrate(made(), *comebacks(100)) for _ in range(2))
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)
