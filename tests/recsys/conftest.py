"""Small matrices: more threads would only wait for each other."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Torch computes on one thread."""
    torch.set_num_threads(1)
