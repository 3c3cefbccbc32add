import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tasks.recsys.unit import unit


def vectors() -> Tensor:
    return torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)


def test_it_is_the_vector_over_its_length() -> None:
    long, down = unit(torch.tensor([[3.0, 4.0], [0.0, -2.0]])).tolist()
    assert long == pytest.approx([3 / 5, 4 / 5])
    assert down == [0, -1]


def test_zeros_stay_zeros() -> None:
    assert unit(torch.zeros(2, 3)).tolist() == [[0] * 3] * 2


def test_the_gradient_is_the_limit_of_differences() -> None:
    assert torch.autograd.gradcheck(unit, vectors())


def test_value_and_gradient_are_those_of_torch() -> None:
    one, other = vectors(), vectors()
    weights = torch.arange(60, dtype=torch.float64).view(5, 3, 4)
    (unit(one) * weights).sum().backward()  # type: ignore[no-untyped-call]
    (normalize(other, dim=-1) * weights).sum().backward()  # type: ignore[no-untyped-call]
    assert one.grad is not None
    assert other.grad is not None
    assert torch.allclose(unit(one), normalize(other, dim=-1))
    assert torch.allclose(one.grad, other.grad)
