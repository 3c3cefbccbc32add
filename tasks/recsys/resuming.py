"""Where a fit stands after an epoch, on disk: what a fit that was killed goes on from."""

import os
from pathlib import Path
from typing import Any

import torch

State = dict[str, Any]
"""Tensors, numbers, texts, and lists and dicts of them."""


class Checkpoint:
    """One file, replaced whole after every epoch; a state of another fit is no state."""

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.key = key
        """what the fit is of: recipe, data and shape of the model"""

    def load(self) -> State | None:
        """The state that was saved last, if it is of this fit."""
        try:
            found: State = torch.load(self.path, weights_only=True)
        except FileNotFoundError:
            return None
        return found["state"] if found["key"] == self.key else None

    def save(self, state: State) -> None:
        """Writes the state beside the last one, then puts it in its place: a kill in between leaves the last one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        torch.save({"key": self.key, "state": state}, partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(self.path)
