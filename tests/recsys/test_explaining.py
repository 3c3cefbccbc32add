"""Why candidates stand where they stand, on a booster whose one tree is made by hand and on one that is learned."""

import lightgbm
import numpy as np
import pytest

from tasks.recsys import ranking
from tasks.recsys.candidates import SOURCES, Pairs
from tasks.recsys.explaining import DOWN, UP, explain
from tasks.recsys.features import FEATURES, ItemTable, features, item_table
from tasks.recsys.interactions import DAY, Histories, histories
from tasks.recsys.ranking import Boosting, Groups
from tasks.recsys.statistics import item_statistics
from tests.recsys.made import chance

CUT = 160 * DAY
OWN, NEAR = (SOURCES.index(source) for source in SOURCES[:2])


@pytest.fixture(scope="module")
def asked() -> tuple[Pairs, Histories, ItemTable]:
    """A list of twelve candidates for somebody who has a history; the first two sources name every other one."""
    known = chance(1, 600)
    past = histories(known, CUT, 50, np.array([3]))
    count = np.arange(1, 13, dtype=np.int16)
    rank = np.zeros((12, len(SOURCES)), dtype=np.int16)
    rank[::2, OWN], rank[1::2, NEAR] = count[::2], count[1::2]
    pairs = Pairs(np.zeros(12, dtype=np.int32), np.arange(12, dtype=np.int32), count, rank, rank.astype(np.float32))
    category, price = np.arange(25, dtype=np.int32) % 4, np.arange(25, dtype=np.float32)
    return pairs, past, item_table({**item_statistics(known, CUT), "category": category, "price": price})


def stump(feature: str, threshold: float) -> lightgbm.Booster:
    """One tree in LightGBM's own text: 2 where the feature is above the threshold, −1 below, as often as each other."""
    (at,) = (position for position, name in enumerate(FEATURES) if name == feature)
    tree = f"""Tree=0
num_leaves=2
num_cat=0
split_feature={at}
split_gain=1
threshold={threshold}
decision_type=2
left_child=-1
right_child=-2
leaf_value=-1 2
leaf_weight=10 10
leaf_count=10 10
internal_value=0.5
internal_weight=20
internal_count=20
is_linear=0
shrinkage=1


"""
    head = [
        "tree",
        "version=v4",
        "num_class=1",
        "num_tree_per_iteration=1",
        "label_index=0",
        f"max_feature_idx={len(FEATURES) - 1}",
        "objective=lambdarank",
        f"feature_names={' '.join(FEATURES)}",
        f"feature_infos={' '.join(['[0:1000]'] * len(FEATURES))}",
        f"tree_sizes={len(tree)}",
    ]
    return lightgbm.Booster(model_str="\n".join([*head, "", tree]) + "end of trees\n")


def test_a_tree_of_one_feature_names_that_feature_alone(asked: tuple[Pairs, Histories, ItemTable]) -> None:
    """On average the tree gives 0.5: a place above 9.5 moves the score by 1.5, one below by −1.5."""
    found = explain(stump("place", 9.5), *asked)
    assert [one.place for one in found] == [10, 11, 12, *range(1, 10)]
    for one in found:
        (reason,) = one.reasons
        assert (reason.feature, reason.meaning, reason.value) == ("place", FEATURES["place"].meaning, one.place)
        score, moved = (2.0, 1.5) if one.place > 9 else (-1.0, -1.5)
        assert one.score == score and reason.moved == pytest.approx(moved)


def test_a_candidate_names_its_sources_with_their_ranks(asked: tuple[Pairs, Histories, ItemTable]) -> None:
    found = {one.place: one.sources for one in explain(stump("place", 9.5), *asked)}
    assert found[1] == {"own_history": 1} and found[2] == {"covisitation": 2}


def test_what_is_missing_has_no_value(asked: tuple[Pairs, Histories, ItemTable]) -> None:
    by_item = {one.item: one.reasons[0] for one in explain(stump("covisitation_rank", 4.5), *asked)}
    assert by_item[0].value is None and by_item[1].value == 2


@pytest.fixture(scope="module")
def learned() -> lightgbm.Booster:
    """Of noise, by way of many features."""
    rng = np.random.default_rng(1)
    columns = rng.normal(0, 5, (2_000, len(FEATURES))).astype(np.float32)
    groups = Groups(columns, rng.integers(0, 4, 2_000).astype(np.int8), np.full(100, 20))
    booster: lightgbm.Booster = ranking.refit(groups, 20, Boosting(max_trees=20, leaves=7, shrinkage=0.1, seed=1))
    return booster


def test_moves_add_up_to_the_score(learned: lightgbm.Booster, asked: tuple[Pairs, Histories, ItemTable]) -> None:
    columns = features(*asked)
    rest = ranking.score(learned, columns, asked[0].place) - ranking.moves(learned, columns).sum(axis=1)
    np.testing.assert_allclose(rest, rest[0], atol=1e-9)
    assert ranking.moves(learned, columns).std() > 0


def test_the_order_is_that_of_serving(learned: lightgbm.Booster, asked: tuple[Pairs, Histories, ItemTable]) -> None:
    pairs, _, _ = asked
    position, scores = ranking.best(learned, *asked, k=12)
    found = explain(learned, *asked)
    assert [one.item for one in found] == pairs.item[position].tolist()
    assert [one.score for one in found] == scores.tolist()


def test_the_strongest_are_named_up_first(learned: lightgbm.Booster, asked: tuple[Pairs, Histories, ItemTable]) -> None:
    moved = {int(item): row for item, row in zip(asked[0].item, ranking.moves(learned, features(*asked)), strict=True)}
    for one in explain(learned, *asked):
        row = np.sort(moved[one.item])
        expected = [*row[::-1][:UP], *row[:DOWN]]
        assert [reason.moved for reason in one.reasons] == pytest.approx(expected)


def test_where_nothing_was_learned_the_blend_stays_without_a_reason(asked: tuple[Pairs, Histories, ItemTable]) -> None:
    found = explain(None, *asked)
    assert [one.place for one in found] == list(range(1, 13))
    assert not any(one.reasons for one in found)


def test_without_a_candidate_there_is_nothing(
    learned: lightgbm.Booster, asked: tuple[Pairs, Histories, ItemTable]
) -> None:
    pairs, past, items = asked
    assert explain(learned, pairs.where(np.zeros(12, dtype=bool)), past, items) == []
