import math

import pytest
import torch
from torch import Tensor

from tasks.recsys import two_tower
from tasks.recsys.interactions import CART, VIEW
from tasks.recsys.row_adam import RowAdam
from tasks.recsys.sampling import Negatives, NegativeSampler
from tasks.recsys.two_tower import Rows, TwoTower, newest

ITEMS, DIM, WINDOW, HEADS = 12, 8, 4, 2


@pytest.fixture
def model() -> TwoTower:
    """A two-tower with every parameter away from where it starts."""
    torch.manual_seed(3)
    made = TwoTower(ITEMS, DIM // HEADS, WINDOW, HEADS)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name != "item.weight":
                parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def ids(*rows: list[int]) -> Tensor:
    return torch.tensor(rows)


def negatives(*items: int) -> Negatives:
    """A sample in which each item was drawn as often as expected."""
    count = len(items)
    return Negatives(torch.tensor(items), torch.ones(count, dtype=torch.long), torch.zeros(count))


def loss(model: TwoTower, item: Tensor, event: Tensor, sample: Negatives) -> Tensor:
    """The loss of windows whose tables' rows are read for it."""
    return model.loss(rows_of(model, item, sample), item, event, sample)


def rows_of(model: TwoTower, item: Tensor, sample: Negatives) -> Rows:
    return read(model, item, sample)[0]


def read(model: TwoTower, item: Tensor, sample: Negatives) -> tuple[Rows, RowAdam]:
    """The rows that the windows and the sample are about, and the optimizer that will move them."""
    touched = torch.unique(torch.cat([item[item >= 0], sample.item]))
    adam = RowAdam(model.tables, 0.1, (0.9, 0.999), 1e-8)
    return Rows(touched, *adam.read(touched)), adam


def query(model: TwoTower, item: list[int], event: list[int]) -> Tensor:
    """The query vector of one history."""
    return model.query_vectors(ids(item), ids(event))[0][0]


@torch.no_grad()
def score(model: TwoTower, item: list[int], event: list[int]) -> Tensor:
    """[items]: every item's score for one history."""
    vector, own = model.query_vectors(ids(item), ids(event))
    scores = model.item_vectors() @ vector[0]
    for at, one in zip(item, own[0], strict=True):
        if torch.isfinite(one):
            scores[at] = one
    return scores


@torch.no_grad()
def test_a_query_is_the_weighted_sum_of_the_newest_steps(model: TwoTower) -> None:
    item, event = [5, 2, 2, 9, 1], [VIEW, CART, VIEW, VIEW, CART]
    likeness = torch.zeros(DIM)
    for back in range(WINDOW):  # item 5 is one step too far back
        at = len(item) - 1 - back
        likeness += (model.step[back] + model.event[event[at]]).exp() * model.item.weight[item[at]]
    heads = likeness.view(HEADS, -1) / likeness.view(HEADS, -1).norm(dim=1, keepdim=True)
    surer = model.log_length[WINDOW - 1].exp()  # no history is longer than the window
    scaled = surer * heads / model.log_temperature.exp() / HEADS  # the score is the mean over heads
    assert query(model, item, event).tolist() == pytest.approx([*scaled.flatten().tolist(), 1.0], abs=1e-5)


@torch.no_grad()
def test_the_history_s_own_items_get_what_repeats_add(model: TwoTower) -> None:
    item, event = [5, 2, 2, 9, 1], [VIEW, CART, VIEW, VIEW, CART]
    vector, own = model.query_vectors(ids(item), ids(event))
    repeats = dict.fromkeys(range(ITEMS), 0.0)
    for back in range(WINDOW):
        at = len(item) - 1 - back
        repeats[item[at]] += float((model.repeat[back] + model.repeat_event[event[at]]).exp())
    assert torch.isfinite(own[0]).tolist() == [True, False, True, True, True]  # an item counts once, at its newest step
    for at in (0, 2, 3, 4):
        expected = float(model.item_vectors()[item[at]] @ vector[0]) + repeats[item[at]]
        assert float(own[0, at]) == pytest.approx(expected, abs=1e-4)


@torch.no_grad()
def test_a_new_item_is_like_itself_alone_and_as_long_as_the_others(model: TwoTower) -> None:
    item, event = [5, ITEMS + 3, 2, ITEMS + 3], [VIEW, CART, VIEW, VIEW]
    weights = [float((model.step[3 - at] + model.event[event[at]]).exp()) for at in range(4)]
    repeats = [float((model.repeat[3 - at] + model.repeat_event[event[at]]).exp()) for at in range(4)]
    heads = model.item.weight.view(ITEMS, HEADS, -1)
    known = weights[0] * heads[5] + weights[2] * heads[2]
    alone = (weights[1] + weights[3]) * (heads[5].norm(dim=1) + heads[2].norm(dim=1)) / 2
    surer = model.log_length[3].exp() / model.log_temperature.exp()[:, 0] / (known.norm(dim=1) ** 2 + alone**2).sqrt()
    vector, own = model.query_vectors(ids(item), ids(event))
    assert torch.allclose(vector[0, :DIM], (known * surer.unsqueeze(1)).flatten() / HEADS, atol=1e-5)
    assert torch.isfinite(own[0]).tolist() == [True, False, True, True]
    assert float(own[0, 3]) == pytest.approx(float((alone * surer).mean()) + repeats[1] + repeats[3], abs=1e-4)
    of_known = float(model.item_vectors()[5] @ vector[0]) + repeats[0]
    assert float(own[0, 0]) == pytest.approx(of_known, abs=1e-4)


def test_popularity_starts_from_the_log_of_how_often_an_item_was_met(model: TwoTower) -> None:
    met = torch.arange(model.item.num_embeddings)
    model.start(met)
    started = model.bias.weight.detach().squeeze(1)
    assert torch.allclose(started - started[0], torch.log(met + 1.0), atol=1e-6)
    assert abs(float(started.mean())) < 1e-6


def test_the_newest_step_of_an_item_after_each_position() -> None:
    assert newest(ids([5, 2, 5, -1]))[0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0]]


@torch.no_grad()
def test_later_steps_change_no_earlier_query(model: TwoTower) -> None:
    item, event = ids([5, 2, 7, 9, 1]), ids([VIEW, CART, VIEW, VIEW, CART])
    for position in range(1, 5):
        later_item, later_event = item.clone(), event.clone()
        later_item[0, position:] = 11
        later_event[0, position:] = 2
        one, other = (model.pool(model.item(i), i >= 0, e)[0] for i, e in ((item, event), (later_item, later_event)))
        assert torch.equal(one[:position], other[:position])
        assert not torch.allclose(one[position], other[position])


@torch.no_grad()
def test_padding_is_ignored(model: TwoTower) -> None:
    short, own = model.query_vectors(ids([5, 2]), ids([VIEW, CART]))
    padded, padded_own = model.query_vectors(ids([5, 2, -1, -1]), ids([VIEW, CART, VIEW, VIEW]))
    assert padded[0].tolist() == pytest.approx(short[0].tolist(), abs=1e-6)
    assert padded_own[0].tolist() == pytest.approx([*own[0].tolist(), -math.inf, -math.inf], abs=1e-6)
    plain = loss(model, ids([5, 2, 7]), ids([0, 0, 0]), negatives(1, 3))
    padded_loss = loss(model, ids([5, 2, 7, -1, -1]), ids([0, 0, 0, 0, 0]), negatives(1, 3))
    assert float(padded_loss) == pytest.approx(float(plain), rel=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("heads", [1, HEADS])
def test_the_loss_is_the_mean_over_heads_of_the_cross_entropy_of_their_scores(heads: int) -> None:
    torch.manual_seed(4)
    model = TwoTower(ITEMS, DIM // heads, WINDOW, heads)
    torch.nn.init.normal_(model.bias.weight)
    history, target, others = [5, 2, 7], 9, [1, 3, 11]
    losses = loss(model, ids([*history, target]), ids([0, 1, 0, 0]), negatives(*others))
    two_less = loss(model, ids(history), ids([0, 1, 0]), negatives(*others))
    last = 3 * float(losses) - 2 * float(two_less)  # a mean of three less a mean of the first two
    asked, items = query(model, history, [0, 1, 0]), model.item_vectors()
    likeness = (asked * items)[:, :DIM].view(ITEMS, heads, -1).sum(2) * heads
    repeats = score(model, history, [0, 1, 0]) - items @ asked
    scores = likeness.T + items[:, DIM] + repeats
    candidates = (target, *others, *history)  # the history's own items are told apart, too
    expected = [math.log(sum(math.exp(float(one[j])) for j in candidates)) - float(one[target]) for one in scores]
    assert last == pytest.approx(sum(expected) / heads, abs=1e-4)


@torch.no_grad()
def test_dropout_hides_an_item_from_likeness_alone(model: TwoTower) -> None:
    item, event, sample = ids([5, 2, 7]), ids([0, 0, 0]), negatives(1, 3)
    rows = rows_of(model, item, sample)
    full = float(model.loss(rows, item, event, sample))
    assert float(model.loss(rows, item, event, sample, item >= 0)) == full
    hidden = float(model.loss(rows, item, event, sample, item != 5))
    assert hidden != full
    pooled = model.pool(rows.item[rows.place(item[:, :-1])], item[:, :-1] != 5, event[:, :-1])
    alone = model.pool(rows.item[rows.place(item[:, 1:-1])], item[:, 1:-1] >= 0, event[:, 1:-1])
    one, two = model.log_length[:2].exp()
    # After the second step: as if 5 had not been there, but for the length of the history.
    assert torch.allclose(pooled[:, 1] / two, alone[:, 0] / one, atol=1e-5)


@torch.no_grad()
def test_likeness_is_a_cosine_over_the_temperature_for_each_head(model: TwoTower) -> None:
    asked, item = query(model, [5, 2], [0, 0]), model.item_vectors()
    assert asked.shape == (DIM + 1,)
    assert item.shape == (ITEMS, DIM + 1)
    lengths = asked[:DIM].view(HEADS, -1).norm(dim=1) * HEADS
    assert lengths.tolist() == pytest.approx(torch.exp(model.log_length[1] - model.log_temperature)[:, 0].tolist())
    assert item[:, :DIM].reshape(ITEMS * HEADS, -1).norm(dim=1).tolist() == pytest.approx([1] * ITEMS * HEADS)
    assert torch.equal(item[:, -1:], model.bias.weight * model.log_popularity.exp())


def test_every_item_of_a_long_table_has_its_vector() -> None:
    model = TwoTower(2 * two_tower.ROWS + 1, DIM // HEADS, WINDOW, HEADS)
    ends = torch.tensor([0, two_tower.ROWS - 1, two_tower.ROWS, 2 * two_tower.ROWS])
    found = model.item_vectors()
    assert torch.equal(found[ends], model.vectors(ends).detach())
    assert found.norm(dim=1).tolist() == pytest.approx([math.sqrt(HEADS)] * len(found), abs=1e-5)


def test_who_has_no_history_gets_zeros_and_1(model: TwoTower) -> None:
    vectors, own = model.query_vectors(ids([-1, -1], [3, -1]), ids([0, 0], [0, 0]))
    assert vectors[0].tolist() == [0] * DIM + [1]
    assert own[0].tolist() == [-math.inf] * 2
    assert float(vectors[1, :DIM].norm()) > 0


@torch.no_grad()
def test_the_own_positive_is_no_negative(model: TwoTower) -> None:
    window, event = ids([5, 2]), ids([0, 0])
    with_hit, without = loss(model, window, event, negatives(1, 2, 3)), loss(model, window, event, negatives(1, 3))
    assert float(with_hit) == pytest.approx(float(without), rel=1e-6)


def test_gradients_are_of_the_batch_and_its_negatives_alone(model: TwoTower) -> None:
    item, sample = ids([5, 2, 7, -1]), negatives(1, 3)
    rows = rows_of(model, item, sample)
    model.loss(rows, item, torch.zeros_like(item), sample).backward()  # type: ignore[no-untyped-call]
    assert rows.ids.tolist() == [1, 2, 3, 5, 7]
    assert rows.item.grad is not None
    assert rows.bias.grad is not None
    assert (rows.item.grad != 0).any(dim=1).tolist() == [True] * 5
    assert (rows.bias.grad[:, 0] != 0).all()
    assert model.item.weight.grad is None


def test_a_step_leaves_every_other_row_as_it_was_to_the_bit(model: TwoTower) -> None:
    before = model.item.weight.detach().clone()
    item, sample = ids([5, 2, 7]), negatives(1, 3)
    rows, adam = read(model, item, sample)
    model.loss(rows, item, torch.zeros_like(item), sample).backward()  # type: ignore[no-untyped-call]
    adam.step()
    same = (before == model.item.weight).all(dim=1)
    assert {item for item in range(ITEMS) if not same[item]} == {1, 2, 3, 5, 7}


def test_the_gradient_of_the_sampled_loss_is_that_of_the_full_one_on_average() -> None:
    torch.manual_seed(0)
    model = TwoTower(ITEMS, DIM // HEADS, WINDOW, HEADS)
    sampler = NegativeSampler.of(torch.tensor([50, 1, 1, 9, 0, 3, 80, 2, 1, 1, 5, 1]))
    sampled = sampler.draw(200_000, torch.Generator().manual_seed(0))
    rows = rows_of(model, ids([5, 2]), sampled)
    model.loss(rows, ids([5, 2]), ids([0, 0]), sampled).backward()  # type: ignore[no-untyped-call]
    assert rows.bias.grad is not None
    found = rows.bias.grad[:, 0]
    with torch.no_grad():
        chance = torch.softmax((model.query_vectors(ids([5]), ids([0]))[0] @ model.item_vectors().T)[0], dim=0)
    chance[2] -= 1  # the softmax less the target
    assert found.tolist() == pytest.approx(chance.tolist(), abs=0.01)
