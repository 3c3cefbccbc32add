import math

import pytest
import torch
from torch import Tensor

from tasks.recsys import losses, one_pass

HEADS, BATCH, SAMPLED, DIM = 2, 7, 5, 3


def inputs() -> list[Tensor]:
    """Query, candidates, common and positive, with an accidental hit."""
    generator = torch.Generator().manual_seed(0)
    shapes = (HEADS, BATCH, DIM), (HEADS, SAMPLED, DIM), (BATCH, SAMPLED), (HEADS, BATCH)
    made = [torch.randn(shape, generator=generator) for shape in shapes]
    made[2][3, 1] = -math.inf
    return [one.requires_grad_() for one in made]


@pytest.mark.parametrize("cells", [1, 2 * SAMPLED, 1_000])
def test_value_and_gradients_are_those_of_the_plain_loss(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_pass, "CELLS", cells)
    ours, plain = inputs(), inputs()
    found = one_pass.sampled_softmax(*ours)
    query, candidates, common, positive = plain
    scores = common + query @ candidates.transpose(1, 2)
    expected = losses.sampled_softmax(positive.flatten(), scores.flatten(0, 1))
    assert found.item() == pytest.approx(expected.item())
    (3 * found).backward()  # type: ignore[no-untyped-call]
    (3 * expected).backward()  # type: ignore[no-untyped-call]
    for one, other in zip(ours, plain, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.allclose(one.grad, other.grad, atol=1e-6)


def test_great_scores_do_not_overflow() -> None:
    query, candidates = torch.full((1, 1, 1), 500.0), torch.ones(1, 1, 1)
    assert one_pass.sampled_softmax(query, candidates, torch.zeros(1, 1), torch.zeros(1, 1)).item() == 500
