import numpy as np
import numpy.typing as npt
import pytest

from tasks.recsys import metrics, ranking
from tasks.recsys.candidates import SOURCES, Pairs
from tasks.recsys.features import FEATURES, features, item_table
from tasks.recsys.interactions import DAY, histories, truth_between
from tasks.recsys.ranking import (
    Boosting,
    Groups,
    concatenate,
    contributions,
    down_sample,
    first,
    grades,
    learnable,
    lists,
    ranked,
    refit,
    score,
    train,
)
from tasks.recsys.statistics import item_statistics
from tests.recsys.made import chance, views

HOW = Boosting(max_trees=40, leaves=7, shrinkage=0.1, seed=1)
GROUPS, SIZE = 300, 20


def made(seed: int, signal: float, leak: bool = False) -> Groups:
    """One positive a group; column 0 is the place, column 1 tells the positive as far as `signal` says."""
    rng = np.random.default_rng(seed)
    columns = rng.random((GROUPS * SIZE, len(FEATURES))).astype(np.float32)
    columns[:, 0] = np.tile(np.arange(1, SIZE + 1), GROUPS)
    grade = np.zeros(GROUPS * SIZE, dtype=np.int8)
    grade[np.arange(GROUPS) * SIZE + rng.integers(0, SIZE, GROUPS)] = 1
    columns[:, 1] += signal * grade
    if leak:
        columns[:, 2] = grade
    return Groups(columns, grade, np.full(GROUPS, SIZE))


def ndcg(groups: Groups, by: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """NDCG@10 of each group with its one positive, the last of those that tie with it: 1 / log2(rank + 1)."""
    table, positive = by.reshape(-1, SIZE), groups.grade.reshape(-1, SIZE).argmax(axis=1)
    own = np.take_along_axis(table, positive[:, None], 1)
    rank = (table >= own).sum(axis=1)
    return np.where(rank <= 10, 1 / np.log2(rank + 1), 0.0)


def gain(signal: float, leak: bool = False) -> tuple[metrics.Mean, float]:
    """What a booster adds to the order by place on groups that it has not seen, and what it reaches."""
    booster, _ = train(made(1, signal, leak), made(2, signal, leak), HOW)
    held_out = made(3, signal, leak)
    after = ndcg(held_out, score(booster, held_out.features, np.zeros(0, dtype=np.int16)))
    return metrics.paired(after, ndcg(held_out, -held_out.features[:, 0])), float(after.mean())


def test_the_first_trees_of_a_booster_are_those_of_one_that_was_grown_no_further() -> None:
    groups = made(1, signal=0.5)
    long, short = first(refit(groups, 20, HOW), 7), refit(groups, 7, HOW)
    assert long.num_trees() == 7
    held_out = made(3, signal=0.5).features
    assert np.array_equal(long.predict(held_out), short.predict(held_out))


def test_noise_gains_nothing() -> None:
    found, _ = gain(signal=0)
    assert found.low is not None and found.low < 0


def test_a_planted_preference_is_found() -> None:
    found, after = gain(signal=0.5)
    assert found.low is not None and found.low > 0.1
    assert after < 0.9


def test_a_feature_that_leaks_the_label_shows_as_a_ceiling_nobody_reaches_honestly() -> None:
    assert gain(signal=0, leak=True)[1] > 0.99


def test_training_repeats_to_the_bit() -> None:
    first, second = (train(made(1, 0.5), made(2, 0.5), HOW)[0].model_to_string() for _ in range(2))
    assert first == second


def test_a_refit_learns_from_the_groups_that_told_when_to_stop() -> None:
    """The first groups hold no sign of the preference, the last ones do."""
    both = concatenate([made(1, 0), made(2, 1.0)])
    booster = refit(both, 30, HOW)
    held_out = made(3, 1.0)
    assert booster.num_trees() == 30
    assert ndcg(held_out, score(booster, held_out.features, np.zeros(0, dtype=np.int16))).mean() > 0.6
    assert refit(both, 30, HOW).model_to_string() == booster.model_to_string()


def test_contributions_add_up_to_the_score_and_show_the_planted_feature() -> None:
    groups = made(1, 0.5)
    booster = refit(groups, 20, HOW)
    some = groups.features[:50]
    each = booster.predict(some, pred_contrib=True)
    assert each.sum(axis=1) == pytest.approx(booster.predict(some))
    found = contributions(booster, some)
    assert found == pytest.approx(np.abs(each[:, :-1]).mean(axis=0))
    assert found.argmax() == 1


def test_grades_are_the_strongest_event_of_the_window() -> None:
    known = views((0, 5, 1), (0, 5, 2), (2, 7, 1))
    truth = truth_between(known, DAY, 3 * DAY)
    truth.event[:] = [2, 0]
    wanted = np.array([0, 0, 1, 2], dtype=np.int32), np.array([5, 7, 5, 7], dtype=np.int32)
    assert grades(*wanted, truth).tolist() == [3, 0, 0, 1]
    assert grades(*wanted, truth_between(known, 5 * DAY, 6 * DAY)).tolist() == [0, 0, 0, 0]


def test_only_negatives_are_left_out_and_groups_stay_together() -> None:
    groups = made(1, 0)
    kept = down_sample(groups, 0.25, seed=3)
    assert kept.grade.sum() == groups.grade.sum() == GROUPS
    negatives = (kept.grade == 0).sum() / (groups.grade == 0).sum()
    assert 0.22 < negatives < 0.28
    assert kept.size.sum() == len(kept.grade)
    assert (np.bincount(kept.group[kept.grade > 0], minlength=GROUPS) == 1).all()


def test_rows_are_shuffled_within_their_groups() -> None:
    """LightGBM breaks ties by row order, which was the blend's."""
    groups = made(1, 0)
    kept = down_sample(groups, 1.0, seed=3)
    place, group = kept.features[:, 0].reshape(-1, SIZE), groups.features.reshape(GROUPS, SIZE, -1)
    assert (np.sort(place, axis=1) == np.arange(1, SIZE + 1)).all()
    assert abs(np.corrcoef(place.mean(axis=0), np.arange(SIZE))[0, 1]) < 0.6  # in the blend's order it is 1
    order = np.argsort(place, axis=1)[:, :, None]
    assert (np.take_along_axis(kept.features.reshape(GROUPS, SIZE, -1), order, 1) == group).all()


def test_groups_without_a_positive_teach_nothing() -> None:
    columns = np.zeros((5, len(FEATURES)), dtype=np.float32)
    groups = Groups(columns, np.array([0, 1, 0, 0, 2], dtype=np.int8), np.array([2, 2, 1]))
    assert learnable(groups).size.tolist() == [2, 1]
    assert concatenate([groups, groups]).size.tolist() == [2, 2, 1, 2, 2, 1]


def pairs(row: list[int], item: list[int]) -> Pairs:
    place = np.array([row[: i + 1].count(r) for i, r in enumerate(row)], dtype=np.int16)
    nothing = np.zeros((len(row), len(SOURCES)))
    rows, items = (np.array(values, dtype=np.int32) for values in (row, item))
    return Pairs(rows, items, place, nothing.astype(np.int16), nothing.astype(np.float32))


def test_best_first_and_ties_by_the_place_in_the_blend() -> None:
    two = pairs([0, 0, 0, 2, 2], [10, 11, 12, 20, 21])
    scores = np.array([0.5, 0.9, 0.5, 1.0, -np.inf])
    assert lists(two, scores, rows=3, k=2).tolist() == [[11, 10], [-1, -1], [20, -1]]
    position, rank = ranked(two, scores, k=2)
    assert (position.tolist(), rank.tolist()) == ([1, 0, 3], [0, 1, 0])


def test_without_a_booster_the_blend_s_order_stays() -> None:
    place = np.array([1, 2, 3])
    assert score(None, np.zeros((3, len(FEATURES)), dtype=np.float32), place).tolist() == [1, 1 / 2, 1 / 3]


def test_the_best_of_all_lists_are_those_of_each_list_alone() -> None:
    lists, end = 2 * ranking.CHUNK + 7, 30 * DAY
    known = chance(3, 10 * lists, users=lists, items=30, days=40)
    past = histories(known, end, 20, np.arange(known.before(end).users))
    assert len(past) > 2 * ranking.CHUNK
    rng = np.random.default_rng(0)
    sizes = rng.integers(0, 12, len(past))  # some lists are empty
    row = np.repeat(np.arange(len(past), dtype=np.int32), sizes)
    item = rng.integers(0, known.before(30 * DAY).items, len(row)).astype(np.int32)
    place = (np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + 1).astype(np.int16)
    blank = np.zeros((len(row), len(SOURCES)))
    pairs = Pairs(row, item, place, blank.astype(np.int16), blank.astype(np.float32))
    statistics = item_statistics(known, 30 * DAY)
    size = len(statistics["item"])
    items = item_table({**statistics, "category": np.arange(size, dtype="i4") % 3, "price": np.ones(size, dtype="f4")})
    booster, _ = train(made(1, 1.0), made(2, 1.0), HOW)
    expected_scores = score(booster, features(pairs, past, items), pairs.place)
    expected, _ = ranked(pairs, expected_scores, 5)
    position, scores = ranking.best(booster, pairs, past, items, 5)
    assert position.tolist() == expected.tolist()
    assert scores.tolist() == expected_scores[expected].tolist()
