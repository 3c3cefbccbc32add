"""One of the three fits of the two-tower, in a process that loads no more than that takes."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from tasks import dataset_files, memory
from tasks.contracts import Dataset, TrainTwoTowerConfig
from tasks.failures import BadModel
from tasks.recsys import finishing
from tasks.recsys.finishing import HeldOut
from tasks.recsys.interactions import Interactions
from tasks.recsys.recipe import Fit, Recipe
from tasks.recsys.sequences import Windows, windows
from tasks.recsys.two_tower import TwoTower

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What a process needs to know to make one of the fits."""

    name: str
    cut: int
    """UTC ms; the fit sees what came before it"""
    data: Path
    dataset: Dataset
    config: TrainTwoTowerConfig
    recipe: Recipe
    out: Path
    fitted: Path
    """the weights before they are calibrated"""
    checkpoint: Path | None
    """where it stands after each epoch, for the next try"""


def fit(plan: Plan, epochs: int) -> Fit:
    """Makes a fit; the one of c1 is judged on c1–c2, and so chooses how many epochs are best.

    On one thread, so that it is the same bytes however many cores there are.
    """
    from tasks.recsys import steps, training  # here: Lightning takes 170 MB, of which who starts the fits needs none

    torch.set_num_threads(1)
    config = plan.config
    past, items, held = _read(plan)
    memory.give_back()  # reading takes more than it leaves, and the fits stand side by side
    validate = held.recall if held and len(held) else None
    torch.manual_seed(config.seed)
    model = TwoTower(items, config.dim, config.window, config.heads)
    try:
        found = training.fit(model, past, plan.recipe, epochs, validate, plan.checkpoint)
    except steps.Diverged as error:
        raise BadModel(f"fit {plan.name}: {error}") from None
    torch.save(model.cpu().state_dict(), plan.fitted)
    return found


def _read(plan: Plan) -> tuple[Windows, int, HeldOut | None]:
    """What a fit learns from, the number of its items, and what that of c1 is judged on; no more stays in memory."""
    interactions = dataset_files.read_interactions(plan.data)
    known = interactions.before(plan.cut)
    log.info("fit %s: %d interactions of %d users and %d items", plan.name, len(known), known.users, known.items)
    held = held_out(plan, interactions) if plan.cut == plan.dataset.first_cut else None
    return windows(known, plan.config.window), known.items, held


def fitted(plan: Plan, items: int) -> TwoTower:
    """A fit that was made, of so many items, as it is before it is calibrated."""
    model = TwoTower(items, plan.config.dim, plan.config.window, plan.config.heads)
    model.load_state_dict(torch.load(plan.fitted, weights_only=True))
    return model


def held_out(plan: Plan, interactions: Interactions) -> HeldOut:
    """What the fit of c1 is judged on."""
    dataset = plan.dataset
    held = finishing.held_out(interactions, dataset.first_cut, dataset.second_cut, plan.config.window)
    if not len(held):
        log.warning("nobody in c1–c2 can be asked for a next item: every epoch of the recipe is run, none is chosen")
    else:
        log.info("each epoch is judged on %d users of c1–c2", len(held))
    return held
