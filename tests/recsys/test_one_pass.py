import math

import pytest
import torch
from torch import Tensor

from tasks.recsys import losses, one_pass
from tasks.recsys.one_pass import Loss

HEADS, BATCH, SAMPLED, DIM, OWN = 2, 7, 5, 3, 2
CORRECTION = torch.tensor([0.5, -1.0, 0.0, 2.0, -math.inf])
HITS = torch.tensor([1, 1, 3, 5]), torch.tensor([0, 3, 1, 2])


def inputs() -> list[Tensor]:
    """Query, candidates, bias, own scores and the positives."""
    generator = torch.Generator().manual_seed(0)
    shapes = (HEADS, BATCH, DIM), (HEADS, SAMPLED, DIM), (SAMPLED,), (HEADS, BATCH, OWN), (HEADS, BATCH)
    made = [torch.randn(shape, generator=generator) for shape in shapes]
    made[3][:, 2] = -math.inf  # a row without own candidates
    return [one.requires_grad_() for one in made]


def ours(given: list[Tensor], kind: Loss, scored_in: torch.dtype = torch.float32) -> Tensor:
    query, candidates, bias, own, positive = given
    return one_pass.loss(query, candidates, bias, CORRECTION, HITS, own, positive, scored_in, kind)


def plain(given: list[Tensor], kind: Loss) -> Tensor:
    """The same by the plain losses, all scores in memory."""
    query, candidates, bias, own, positive = given
    hit = torch.zeros(BATCH, SAMPLED, dtype=torch.bool).index_put_(HITS, torch.tensor(True))
    scores = (query @ candidates.transpose(1, 2) + bias).masked_fill(hit, -math.inf)
    correction = torch.cat([CORRECTION, torch.zeros(OWN)])
    if kind == "bpr":
        # Own candidates are further pairs of weight 1 beside the sample's, whose weights alone make up the total.
        everything = torch.logsumexp(correction, 0) - torch.logsumexp(CORRECTION, 0)
        return losses.bpr(positive.flatten(), torch.cat([scores, own], 2).flatten(0, 1), correction) * everything.exp()
    return losses.sampled_softmax(positive.flatten(), (torch.cat([scores, own], 2) + correction).flatten(0, 1))


@pytest.mark.parametrize("kind", ["softmax", "bpr"])
@pytest.mark.parametrize("cells", [1, 2 * SAMPLED, 1_000])
def test_value_and_gradients_are_those_of_the_plain_loss(
    cells: int, kind: Loss, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_pass, "CELLS", cells)
    one, other = inputs(), inputs()
    found, expected = ours(one, kind), plain(other, kind)
    assert found.item() == pytest.approx(expected.item())
    (3 * found).backward()  # type: ignore[no-untyped-call]
    (3 * expected).backward()  # type: ignore[no-untyped-call]
    for left, right in zip(one, other, strict=True):
        assert left.grad is not None
        assert right.grad is not None
        assert torch.allclose(left.grad, right.grad, atol=1e-6)


@pytest.mark.parametrize("kind", ["softmax", "bpr"])
def test_half_precision_is_near(kind: Loss) -> None:
    one, other = inputs(), inputs()
    rough, exact = ours(one, kind, torch.bfloat16), ours(other, kind)
    assert rough.item() == pytest.approx(exact.item(), rel=0.01)
    assert rough.item() != exact.item()
    rough.backward()  # type: ignore[no-untyped-call]
    exact.backward()  # type: ignore[no-untyped-call]
    for left, right in zip(one, other, strict=True):
        assert left.grad is not None
        assert right.grad is not None
        assert left.grad.dtype == torch.float32
        assert torch.allclose(left.grad, right.grad, atol=0.02)


def of_one_candidate(query: float, candidate: float, own: float, positive: float, scored_in: torch.dtype) -> float:
    """The loss of a row with a single candidate and a single one of its own."""
    nowhere, zero = torch.zeros(0, dtype=torch.long), torch.zeros(1)
    asked, offered, mine = (torch.tensor([[[float(one)]]]) for one in (query, candidate, own))
    wanted = torch.tensor([[float(positive)]])
    return one_pass.loss(asked, offered, zero, zero, (nowhere, nowhere), mine, wanted, scored_in).item()


@pytest.mark.parametrize("scored_in", [torch.float32, torch.bfloat16])
def test_great_scores_do_not_overflow(scored_in: torch.dtype) -> None:
    assert of_one_candidate(500, 1, 400, 0, scored_in) == pytest.approx(500, rel=0.01)
    assert of_one_candidate(500, 1, 400, 0, torch.float32) == 500


@pytest.mark.parametrize("scored_in", [torch.float32, torch.bfloat16])
def test_scores_far_below_what_they_could_be_do_not_vanish(scored_in: torch.dtype) -> None:
    assert of_one_candidate(50, -1, -math.inf, -50, scored_in) == pytest.approx(math.log(2), rel=0.01)
