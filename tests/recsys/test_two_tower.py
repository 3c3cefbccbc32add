import math

import pytest
import torch
from torch import Tensor

from tasks.recsys.interactions import CART, VIEW
from tasks.recsys.sampling import Negatives, NegativeSampler
from tasks.recsys.two_tower import TwoTower

ITEMS, DIM, WINDOW = 12, 8, 4


@pytest.fixture
def model() -> TwoTower:
    """A two-tower with every parameter away from where it starts."""
    torch.manual_seed(3)
    made = TwoTower(ITEMS, DIM, WINDOW)
    with torch.no_grad():
        for parameter in (made.bias.weight, made.step, made.event, made.log_temperature):
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def ids(*rows: list[int]) -> Tensor:
    return torch.tensor(rows)


def negatives(*items: int) -> Negatives:
    """A sample in which each item was drawn as often as expected."""
    count = len(items)
    return Negatives(torch.tensor(items), torch.ones(count, dtype=torch.long), torch.zeros(count))


@torch.no_grad()
def test_a_query_is_the_weighted_sum_of_the_newest_steps(model: TwoTower) -> None:
    item, event = [5, 2, 2, 9, 1], [VIEW, CART, VIEW, VIEW, CART]
    total = torch.zeros(DIM)
    for back in range(WINDOW):  # item 5 is one step too far back
        at = len(item) - 1 - back
        total += model.step[back].exp() * model.event[event[at]].exp() * model.item.weight[item[at]]
    assert model.pool(ids(item), ids(event))[0, -1].tolist() == pytest.approx((total / total.norm()).tolist(), abs=1e-6)


@torch.no_grad()
def test_later_steps_change_no_earlier_query(model: TwoTower) -> None:
    item, event = ids([5, 2, 7, 9, 1]), ids([VIEW, CART, VIEW, VIEW, CART])
    for position in range(1, 5):
        later_item, later_event = item.clone(), event.clone()
        later_item[0, position:] = 11
        later_event[0, position:] = 2
        one, other = model.pool(item, event)[0], model.pool(later_item, later_event)[0]
        assert torch.equal(one[:position], other[:position])
        assert not torch.allclose(one[position], other[position])


@torch.no_grad()
def test_padding_is_ignored(model: TwoTower) -> None:
    short = model.query_vectors(ids([5, 2]), ids([VIEW, CART]))
    padded = model.query_vectors(ids([5, 2, -1, -1]), ids([VIEW, CART, VIEW, VIEW]))
    assert padded[0].tolist() == pytest.approx(short[0].tolist(), abs=1e-6)
    loss = model.loss(ids([5, 2, 7]), ids([0, 0, 0]), negatives(1, 3))
    padded_loss = model.loss(ids([5, 2, 7, -1, -1]), ids([0, 0, 0, 0, 0]), negatives(1, 3))
    assert float(padded_loss) == pytest.approx(float(loss), rel=1e-6)


@torch.no_grad()
def test_the_inner_product_of_the_vectors_is_the_score_in_the_loss(model: TwoTower) -> None:
    history, target, others = [5, 2, 7], 9, [1, 3, 11]
    score = (model.query_vectors(ids(history), ids([0, 1, 0])) @ model.item_vectors().T)[0]
    losses = model.loss(ids([*history, target]), ids([0, 1, 0, 0]), negatives(*others))
    two_less = model.loss(ids(history), ids([0, 1, 0]), negatives(*others))
    last = 3 * float(losses) - 2 * float(two_less)  # a mean of three less a mean of the first two
    partition = sum(math.exp(float(score[item])) for item in (target, *others))
    assert last == pytest.approx(math.log(partition) - float(score[target]), abs=1e-4)


@torch.no_grad()
def test_vectors_are_of_length_1_over_the_temperature(model: TwoTower) -> None:
    query, item = model.query_vectors(ids([5, 2]), ids([0, 0])), model.item_vectors()
    assert query.shape == (1, DIM + 1)
    assert item.shape == (ITEMS, DIM + 1)
    assert float(query[0, :-1].norm()) == pytest.approx(1)
    assert item[:, :-1].norm(dim=1).tolist() == pytest.approx([float(torch.exp(-model.log_temperature))] * ITEMS)
    assert torch.equal(item[:, -1:], model.bias.weight)


def test_who_has_no_history_gets_zeros_and_1(model: TwoTower) -> None:
    vectors = model.query_vectors(ids([-1, -1], [3, -1]), ids([0, 0], [0, 0]))
    assert vectors[0].tolist() == [0] * DIM + [1]
    assert float(vectors[1, :-1].norm()) == pytest.approx(1)


@torch.no_grad()
def test_the_own_positive_is_no_negative(model: TwoTower) -> None:
    window, event = ids([5, 2]), ids([0, 0])
    with_hit, without = model.loss(window, event, negatives(1, 2, 3)), model.loss(window, event, negatives(1, 3))
    assert float(with_hit) == pytest.approx(float(without), rel=1e-6)


def touched(model: TwoTower, table: Tensor) -> set[int]:
    """Rows of a table that its gradient is about."""
    assert table.grad is not None
    assert table.grad.is_sparse
    return set(table.grad.coalesce().indices()[0].tolist())


def test_gradients_are_of_the_batch_and_its_negatives_alone(model: TwoTower) -> None:
    model.loss(ids([5, 2, 7]), ids([0, 0, 0]), negatives(1, 3)).backward()  # type: ignore[no-untyped-call]
    assert touched(model, model.item.weight) == {1, 2, 3, 5, 7}
    assert touched(model, model.bias.weight) == {1, 2, 3, 7}  # item 5 is only asked with, never scored


def test_a_step_leaves_every_other_row_as_it_was_to_the_bit(model: TwoTower) -> None:
    before = model.item.weight.detach().clone()
    optimizer = torch.optim.SparseAdam([model.item.weight, model.bias.weight], lr=0.1)
    model.loss(ids([5, 2, 7]), ids([0, 0, 0]), negatives(1, 3)).backward()  # type: ignore[no-untyped-call]
    optimizer.step()  # type: ignore[no-untyped-call]
    same = (before == model.item.weight).all(dim=1)
    assert {item for item in range(ITEMS) if not same[item]} == {1, 2, 3, 5, 7}


def test_the_gradient_of_the_sampled_loss_is_that_of_the_full_one_on_average() -> None:
    torch.manual_seed(0)
    model = TwoTower(ITEMS, DIM, WINDOW)
    sampler = NegativeSampler.of(torch.tensor([50, 1, 1, 9, 0, 3, 80, 2, 1, 1, 5, 1]))
    sampled = sampler.draw(200_000, torch.Generator().manual_seed(0))
    model.loss(ids([5, 2]), ids([0, 0]), sampled).backward()  # type: ignore[no-untyped-call]
    assert model.bias.weight.grad is not None
    found = model.bias.weight.grad.to_dense()[:, 0]
    with torch.no_grad():
        chance = torch.softmax((model.query_vectors(ids([5]), ids([0])) @ model.item_vectors().T)[0], dim=0)
    chance[2] -= 1  # the softmax less the target
    assert found.tolist() == pytest.approx(chance.tolist(), abs=0.01)
