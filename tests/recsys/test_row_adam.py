import copy

import pytest
import torch
from torch import Tensor, nn

from tasks.recsys import row_adam
from tasks.recsys.row_adam import RowAdam

ROWS, DIM, STEPS = 40, 3, 200
BETAS, EPS = (0.9, 0.999), 1e-12


def batches(seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Rows that each step touches, ascending, and their gradients."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(STEPS):
        rows = torch.randperm(ROWS, generator=generator)[:5].sort().values
        made.append((rows, torch.randn(5, DIM, generator=generator)))
    return made


def table() -> nn.Parameter:
    return nn.Parameter(torch.arange(ROWS * DIM, dtype=torch.float32).view(ROWS, DIM) / 10)


def step(adam: RowAdam, rows: Tensor, gradient: Tensor) -> None:
    """One step of a single table."""
    (values,) = adam.read(rows)
    values.grad = gradient.clone()
    adam.step()


def trained(rate: float = 0.01) -> tuple[nn.Parameter, RowAdam]:
    made = table()
    adam = RowAdam([made], rate, BETAS, EPS)
    for rows, gradient in batches():
        step(adam, rows, gradient)
    return made, adam


def dense(rate: float = 0.01) -> nn.Parameter:
    """What dense Adam makes of the same gradients."""
    made = table()
    adam = torch.optim.Adam([made], rate, BETAS, EPS)
    for rows, gradient in batches():
        made.grad = torch.zeros(ROWS, DIM).index_copy_(0, rows, gradient)
        adam.step()
    return made


def test_after_catching_up_it_is_dense_adam() -> None:
    made, adam = trained()
    adam.catch_up()
    found, expected = made.detach(), dense().detach()
    moved = (expected - table().detach()).abs().mean()
    # The powers of t drift in the first steps: a few percent of what was moved.
    assert float((found - expected).abs().mean()) < 0.05 * float(moved)


def test_moments_are_those_of_dense_adam() -> None:
    made, adam = trained()
    adam.catch_up()
    mean, square = torch.zeros(ROWS, DIM), torch.zeros(ROWS, DIM)
    for rows, gradient in batches():
        mean, square = BETAS[0] * mean, BETAS[1] * square
        mean[rows] += (1 - BETAS[0]) * gradient
        square[rows] += (1 - BETAS[1]) * gradient**2
    assert torch.allclose(adam.state[made]["moments"][:, 0], mean, atol=1e-6)
    assert torch.allclose(adam.state[made]["moments"][:, 1], square, atol=1e-6)


def test_a_row_that_was_never_touched_stays_to_the_bit() -> None:
    touched = torch.zeros(ROWS, dtype=torch.bool)
    for rows, _ in batches()[:3]:
        touched[rows] = True
    short, few = table(), batches()[:3]
    adam = RowAdam([short], 0.01, BETAS, EPS)
    for rows, gradient in few:
        step(adam, rows, gradient)
    adam.catch_up()
    assert torch.equal((short == table()).all(dim=1), ~touched)


def test_the_missed_steps_by_hand() -> None:
    made = nn.Parameter(torch.zeros(2, 1))
    adam = RowAdam([made], 0.1, (0.5, 0.81), EPS)
    step(adam, torch.tensor([0]), torch.tensor([[2.0]]))
    assert made.tolist() == [[pytest.approx(-0.1)], [0.0]]  # lr · sign
    for _ in range(2):
        step(adam, torch.tensor([1]), torch.tensor([[1.0]]))
    (values,) = adam.read(torch.tensor([0]))
    ratio = 0.5 / 0.9
    direction = 1.0 / (1 - 0.5**3) / (0.19 * 4 / (1 - 0.81**3)) ** 0.5
    assert float(values.detach()) == pytest.approx(-0.1 - 0.1 * (ratio + ratio**2) * direction)
    assert float(adam.held[0].mean) == pytest.approx(1.0 * 0.5**2)
    assert float(adam.held[0].square) == pytest.approx(0.19 * 4 * 0.81**2)


def test_every_row_of_a_long_table_is_caught_up() -> None:
    ends = torch.tensor([0, row_adam.ROWS - 1, row_adam.ROWS, 2 * row_adam.ROWS + 1])
    made = nn.Parameter(torch.zeros(2 * row_adam.ROWS + 2, DIM))
    adam = RowAdam([made], 0.01, BETAS, EPS)
    step(adam, ends, torch.ones(len(ends), DIM))
    step(adam, torch.tensor([1]), torch.ones(1, DIM))
    (expected,) = (one.detach() for one in adam.read(ends))
    adam.catch_up()
    assert torch.equal(made[ends], expected)
    assert torch.nonzero(made[:, 0])[:, 0].tolist() == [0, 1, *ends[1:].tolist()]


def test_a_state_that_was_saved_goes_on_to_the_bit() -> None:
    whole, adam = trained()
    other = nn.Parameter(whole.detach().clone())
    again = RowAdam([other], 0.01, BETAS, EPS)
    again.load_state_dict(copy.deepcopy(adam.state_dict()))
    for optimizer in (adam, again):
        for rows, gradient in batches(1):
            step(optimizer, rows, gradient)
        optimizer.catch_up()
    assert torch.equal(whole, other)
