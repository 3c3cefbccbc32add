import copy

import pytest
import torch
from torch import Tensor, nn

from tasks.recsys.row_adam import RowAdam, row_gradient

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


def trained(rate: float = 0.01) -> tuple[nn.Parameter, RowAdam]:
    made = table()
    adam = RowAdam([made], rate, BETAS, EPS)
    for rows, gradient in batches():
        adam.catch_up(rows)
        made.grad = row_gradient(rows, gradient, made)
        adam.step()
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
    assert torch.allclose(adam.state[made]["mean"], mean, atol=1e-6)
    assert torch.allclose(adam.state[made]["square"], square, atol=1e-6)


def test_a_row_that_was_never_touched_stays_to_the_bit() -> None:
    touched = torch.zeros(ROWS, dtype=torch.bool)
    for rows, _ in batches()[:3]:
        touched[rows] = True
    short, few = table(), batches()[:3]
    adam = RowAdam([short], 0.01, BETAS, EPS)
    for rows, gradient in few:
        adam.catch_up(rows)
        short.grad = row_gradient(rows, gradient, short)
        adam.step()
    adam.catch_up()
    assert torch.equal((short == table()).all(dim=1), ~touched)


def test_the_missed_steps_by_hand() -> None:
    made = nn.Parameter(torch.zeros(2, 1))
    adam = RowAdam([made], 0.1, (0.5, 0.81), 0.0)
    made.grad = row_gradient(torch.tensor([0]), torch.tensor([[2.0]]), made)
    adam.step()
    assert made.tolist() == [[pytest.approx(-0.1)], [0.0]]  # lr · sign
    adam.catch_up(torch.tensor([0]))
    assert made.tolist() == [[pytest.approx(-0.1)], [0.0]]  # nothing was missed
    for _ in range(2):
        made.grad = row_gradient(torch.tensor([1]), torch.tensor([[0.0]]), made)
        adam.param_groups[0]["lr"] = 0.0
        adam.step()
    adam.param_groups[0]["last_lr"] = 0.1
    adam.catch_up(torch.tensor([0]))
    ratio = 0.5 / 0.9
    direction = 1.0 / (1 - 0.5**3) / (0.19 * 4 / (1 - 0.81**3)) ** 0.5
    assert float(made[0].detach()) == pytest.approx(-0.1 - 0.1 * (ratio + ratio**2) * direction)
    assert float(adam.state[made]["mean"][0]) == pytest.approx(1.0 * 0.5**2)
    assert float(adam.state[made]["square"][0]) == pytest.approx(0.19 * 4 * 0.81**2)


def test_a_state_that_was_saved_goes_on_to_the_bit() -> None:
    whole, adam = trained()
    other = nn.Parameter(whole.detach().clone())
    again = RowAdam([other], 0.01, BETAS, EPS)
    again.load_state_dict(copy.deepcopy(adam.state_dict()))
    for one, optimizer in ((whole, adam), (other, again)):
        for rows, gradient in batches(1):
            optimizer.catch_up(rows)
            one.grad = row_gradient(rows, gradient, one)
            optimizer.step()
        optimizer.catch_up()
    assert torch.equal(whole, other)
