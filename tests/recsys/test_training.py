import itertools
import logging
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tasks.recsys.recipe import Fit, Recipe, enough_epochs
from tasks.recsys.sequences import Windows, windows
from tasks.recsys.steps import Diverged
from tasks.recsys.training import fit
from tasks.recsys.two_tower import TwoTower
from tests.recsys.made import views

ITEMS = 40
RECIPE = Recipe(max_epochs=4, patience=2, batch_size=64, negatives=64, learning_rate=0.05, dropout=0.1, seed=11)


def walks(users: int = 60, steps: int = 6) -> Windows:
    """Everybody goes through four items that belong together, from one of them on."""
    return windows(views(*((u, 4 * (u % 10) + (u // 10 + s) % 4, s) for u in range(users) for s in range(steps))), 5)


WINDOWS = walks()


def fitted(
    recipe: Recipe = RECIPE,
    epochs: int = 4,
    validate: Callable[[TwoTower], float] | None = None,
    checkpoint: Path | None = None,
    spoil: Callable[[TwoTower], object] = lambda model: None,
) -> tuple[TwoTower, Fit]:
    """A model and its fit; `spoil` does something to the model before."""
    torch.manual_seed(recipe.seed)
    model = TwoTower(ITEMS, 8, 5, heads=2)
    spoil(model)
    return model, fit(model, WINDOWS, recipe, epochs, validate, checkpoint)


def weights(model: TwoTower) -> bytes:
    return b"".join(value.numpy().tobytes() for value in model.state_dict().values())


def changed(**other: float) -> Recipe:
    return Recipe(**{**vars(RECIPE), **other})


def together(model: TwoTower) -> float:
    """Share of the three nearest of each item that belong together with it."""
    items = torch.arange(ITEMS)
    with torch.no_grad():
        scores = model.query_vectors(items.unsqueeze(1), torch.zeros(ITEMS, 1).long())[0] @ model.item_vectors().T
    scores.fill_diagonal_(-math.inf)
    return float((scores.topk(3).indices // 4 == (items // 4).unsqueeze(1)).float().mean())


def test_it_learns_what_belongs_together() -> None:
    model, found = fitted(changed(max_epochs=12), epochs=12)
    assert together(model) > 0.95
    assert found.losses[-1] < 0.5 * found.losses[0]
    assert len(found.losses) == found.epochs == 12


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here: a fit on one is not tested")
def test_it_learns_the_same_on_a_gpu() -> None:
    torch.cuda.reset_peak_memory_stats()
    model, found = fitted(changed(max_epochs=12), epochs=12)
    assert torch.cuda.max_memory_allocated() > 0, "the fit ran on the CPU"
    assert together(model.cpu()) > 0.95
    assert found.losses[-1] < 0.5 * found.losses[0]


def test_same_seed_same_bytes() -> None:
    (one, first), (two, second) = fitted(), fitted()
    assert weights(one) == weights(two)
    assert first == second


def test_another_seed_gives_other_weights() -> None:
    def from_zero(model: TwoTower) -> None:
        torch.manual_seed(0)
        torch.nn.init.normal_(model.item.weight)

    one, other = (fitted(changed(seed=seed), spoil=from_zero)[0] for seed in (11, 12))
    assert weights(one) != weights(other)  # by the order of the batches and the negatives alone


def test_an_item_that_nobody_met_or_drew_stays_as_it_was() -> None:
    model, before = big(), big()
    fit(model, WINDOWS, RECIPE, 1)
    moved = torch.nonzero((before.item.weight != model.item.weight).any(dim=1))[:, 0]
    batches = math.ceil(WINDOWS.item.size / 64)
    assert ITEMS <= len(moved) <= ITEMS + 64 // 2 * batches  # the uniform half of every batch's negatives


def test_too_high_a_learning_rate_is_said_within_an_epoch() -> None:
    with pytest.raises(Diverged, match=r"(loss is (nan|inf) at step \d+|collapsed|not finite).*learning_rate"):
        fitted(changed(learning_rate=1e30), epochs=1)


def test_a_poisoned_weight_is_said_at_once() -> None:
    def poison(model: TwoTower) -> None:
        with torch.no_grad():
            model.log_temperature.fill_(math.nan)

    with pytest.raises(Diverged, match="the loss is nan at step 0: lower learning_rate, or look at the data"):
        fitted(spoil=poison)


def big(poison: float | None = None, at: int = 0) -> TwoTower:
    """A model of far more items than an epoch touches."""
    torch.manual_seed(0)
    model = TwoTower(50_000, 8, 5, heads=2)
    if poison is not None:
        with torch.no_grad():
            model.item.weight[at] = poison
    return model


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_poisoned_vector_that_no_batch_needs_is_said_after_the_epoch(poison: float) -> None:
    model, before = big(), big()
    fit(model, WINDOWS, RECIPE, 1)
    untouched = int(torch.nonzero((model.item.weight == before.item.weight).all(dim=1))[-1])
    with pytest.raises(Diverged, match="not finite"):
        fit(big(poison, untouched), WINDOWS, RECIPE, 1)


def test_collapsed_vectors_are_said() -> None:
    def collapse(model: TwoTower) -> None:
        with torch.no_grad():
            model.item.weight[:] = model.item.weight[0] + 1e-3 * torch.randn_like(model.item.weight)

    with pytest.raises(Diverged, match=r"collapsed \(mean cosine 0\.99\d+|collapsed \(mean cosine 1\.0000"):
        fitted(changed(learning_rate=1e-9), epochs=1, spoil=collapse)


def test_the_best_epoch_is_kept_and_the_fit_stops_after_its_patience() -> None:
    recalls = iter([0.1, 0.5, 0.4, 0.3, 0.9])
    seen: list[bytes] = []

    def validate(model: TwoTower) -> float:
        seen.append(weights(model))
        return next(recalls)

    model, found = fitted(changed(max_epochs=5), epochs=5, validate=validate)
    assert found.recalls == (0.1, 0.5, 0.4, 0.3)  # two epochs without a better one
    assert found.epochs == 2
    assert weights(model) == seen[1]
    assert len(set(seen)) == 4


def test_validation_changes_nothing_that_is_learned() -> None:
    watched, _ = fitted(epochs=3, validate=lambda model: torch.rand(1).item() * 0)
    assert weights(watched) == weights(fitted(epochs=3)[0])


def test_a_shorter_fit_is_the_beginning_of_the_longer_one() -> None:
    longest: list[Tensor] = []
    fitted(epochs=4, validate=lambda model: longest.append(model.item.weight.detach().clone()) or len(longest))  # type: ignore[func-returns-value]
    short, _ = fitted(epochs=2)
    assert torch.equal(short.item.weight, longest[1])


def test_nothing_to_learn_from() -> None:
    torch.manual_seed(0)
    model = TwoTower(3, 8, 4)
    before = weights(model)
    empty = Windows(np.full((0, 5), -1, dtype=np.int32), np.zeros((0, 5), dtype=np.int8))
    assert fit(model, empty, RECIPE, 4) == Fit(0, (), ())
    assert weights(model) == before


def test_a_line_tells_how_each_epoch_went(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "tasks.recsys.watch"):
        fitted(epochs=2, validate=lambda model: 0.25)
    lines = [record.message for record in caplog.records if record.name == "tasks.recsys.watch"]
    assert len(lines) == 2
    assert lines[1].startswith("epoch 2: loss ")
    assert lines[1].endswith("validation recall@50 0.2500")


class Killed(Exception):
    """Stands for the end of the process."""


def killed_in_epoch(epoch: int, checkpoint: Path, recalls: Callable[[int], float]) -> None:
    """A fit that ends without a word in an epoch, after the epochs before it were checkpointed."""
    at = 0

    def validate(model: TwoTower) -> float:
        nonlocal at
        at += 1
        if at == epoch:
            raise Killed
        return recalls(at)

    with pytest.raises(Killed):
        fitted(changed(patience=3), validate=validate, checkpoint=checkpoint)


def counted(recalls: Callable[[int], float], first: int = 1) -> Callable[[TwoTower], float]:
    """A validation that gives a value for each epoch from the first on."""
    epochs = itertools.count(first)
    return lambda model: recalls(next(epochs))


@pytest.mark.parametrize("best", [1, 2, 4])
def test_a_killed_fit_goes_on_and_gives_the_same_bytes(
    tmp_path: Path, best: int, caplog: pytest.LogCaptureFixture
) -> None:
    def recalls(epoch: int) -> float:
        return 1 - abs(epoch - best) / 10

    whole, expected = fitted(changed(patience=3), validate=counted(recalls))
    killed_in_epoch(3, tmp_path / "fit.ckpt", recalls)
    with caplog.at_level(logging.INFO):
        resumed, found = fitted(changed(patience=3), validate=counted(recalls, 3), checkpoint=tmp_path / "fit.ckpt")
    assert "resumed from epoch 2" in caplog.messages
    assert weights(resumed) == weights(whole)
    assert found == expected


def test_a_fit_that_was_done_is_not_done_again(tmp_path: Path) -> None:
    first, found = fitted(checkpoint=tmp_path / "fit.ckpt")
    again, same = fitted(checkpoint=tmp_path / "fit.ckpt", validate=None)
    assert weights(again) == weights(first)
    assert same == found


@pytest.mark.parametrize("other", [{"seed": 12}, {"learning_rate": 0.04}, {"max_epochs": 5}])
def test_a_checkpoint_of_another_recipe_is_no_beginning(tmp_path: Path, other: dict[str, float]) -> None:
    fitted(changed(**other), checkpoint=tmp_path / "fit.ckpt")
    assert weights(fitted(epochs=2, checkpoint=tmp_path / "fit.ckpt")[0]) == weights(fitted(epochs=2)[0])


def test_little_is_passed_over_more_often() -> None:
    assert enough_epochs(WINDOWS, changed(batch_size=0.5)) == 4  # 300 targets: 2400 steps of half a target are enough
    assert enough_epochs(WINDOWS, changed(batch_size=1)) == math.ceil(2_400 * 1 / 300)
    assert enough_epochs(WINDOWS, RECIPE) == 16  # four times the recipe's at most
