"""Search of a large catalogue: every item is compared in 8 bits, the best of them in 32.

Products of bytes cost a fifth of products of floats where the CPU has instructions for them (VNNI), and their error is
small beside the distance between the k-th item and the 2k-th.  So few items a query are compared exactly; compare ScaNN
(Guo et al., ICML 2020).  What is lost of the exact lists is measured each night.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tasks.recsys.interactions import Longs

Floats = npt.NDArray[np.float32]
Products = npt.NDArray[np.int32]

TILE, BLOCK = 1_024, 512
"""Items and queries of one product: its result stays in the cache."""
SAMPLE, FEWEST_TILES = 14, 4
"""One tile in so many tells where a query's threshold lies; at least so many."""
GROUP = 16
"""Items of the sample of which the best stands for all."""
NAMED, KEPT, ENOUGH = 2.0, 1.25, 1.05
"""Times k: items that the threshold is to let through, that are compared exactly, that are enough to be sure of k."""
WORTH = 150
"""Items for each of the k, below which the exact index is as fast."""
ROWS = 4
"""Queries whose items are gathered at a time: they stay in the cache."""
LOWEST, HIGHEST = np.iinfo(np.int32).min, np.iinfo(np.int32).max


def pays() -> bool:
    """Whether this CPU multiplies bytes faster than floats."""
    return bool(torch.cpu._is_vnni_supported() and torch.cpu._is_avx512_supported())


@dataclass(frozen=True)
class Scan:
    """Finds what an exact index finds, save for a few in ten thousand, in half the time; searches as Faiss does."""

    exact: Any
    """the Faiss index, asked where the threshold fails: many items alike, too few let through"""
    vectors: Tensor
    """[items, dim]"""
    tiles: tuple[Tensor, ...]
    """each [dim, TILE], int8, of items shuffled, so that some tiles are a sample of all"""
    unit: Floats
    """[dim], what 1 stands for"""
    item: Longs
    """[tiles · TILE], which item is where; −1 beyond the last"""

    @classmethod
    def of(cls, exact: Any) -> "Scan":
        """A scan over the vectors of an exact Faiss index."""
        vectors = exact.reconstruct_n(0, exact.ntotal)
        items, dim = vectors.shape
        places = -(-items // TILE) * TILE
        item = np.full(places, -1)
        item[:items] = np.random.default_rng(0).permutation(items)
        unit = np.maximum(np.abs(vectors).max(axis=0, initial=0) / 127, np.finfo(np.float32).tiny).astype(np.float32)
        small = np.zeros((places, -(-dim // 4) * 4), dtype=np.int8)  # bytes are multiplied by fours
        small[:items, :dim] = np.rint(vectors[item[:items]] / unit)
        tiles = tuple(torch.from_numpy(small[at : at + TILE].T.copy()) for at in range(0, places, TILE))
        return cls(exact, torch.from_numpy(vectors), tiles, unit, item)

    def search(self, queries: Floats, k: int) -> tuple[Floats, Longs]:
        """Scores and ids [queries, k] of the best items of queries [queries, dim], best first."""
        if len(self.vectors) < WORTH * k:
            found: tuple[Floats, Longs] = self.exact.search(queries, k)
            return found
        scores, ids = np.empty((len(queries), k), dtype=np.float32), np.empty((len(queries), k), dtype=np.int64)
        for at in range(0, len(queries), BLOCK):
            part = slice(at, at + BLOCK)
            scores[part], ids[part] = self._block(queries[part], k)
        return scores, ids

    def _block(self, queries: Floats, k: int) -> tuple[Floats, Longs]:
        small = self._small(queries)
        threshold = self._threshold(small, k)
        row, item, product = self._above(small, threshold)
        unsure = np.bincount(row, minlength=len(queries)) < ENOUGH * k
        scores, ids = self._best(queries, _most(row, item, product, len(queries), round(KEPT * k)), k)
        if unsure.any():
            scores[unsure], ids[unsure] = self.exact.search(np.ascontiguousarray(queries[unsure]), k)
        return scores, ids

    def _small(self, queries: Floats) -> Tensor:
        """[queries, dim] in bytes, each query in a unit of its own."""
        scaled = queries * self.unit
        largest = np.abs(scaled).max(axis=1, keepdims=True, initial=np.finfo(np.float32).tiny)
        small = np.zeros((len(queries), len(self.tiles[0])), dtype=np.int8)
        small[:, : queries.shape[1]] = np.rint(scaled / (largest / 127))
        return torch.from_numpy(small)

    def _threshold(self, small: Tensor, k: int) -> Products:
        """[queries, 1] products that about `NAMED` · k items reach, by a sample; none does where the best are alike."""
        tiles = self.tiles[: max(FEWEST_TILES, len(self.tiles) // SAMPLE)]
        best = [torch._int_mm(small, tile).numpy().reshape(len(small), GROUP, -1).max(axis=1) for tile in tiles]
        groups = np.concatenate(best, axis=1)
        place = min(groups.shape[1], max(1, round(NAMED * k * len(tiles) / len(self.tiles))))
        threshold = np.partition(groups, -place, axis=1)[:, [-place]]
        alike = (groups >= threshold).sum(axis=1, keepdims=True) > 2 * place
        return np.where(alike, HIGHEST, threshold)

    def _above(self, small: Tensor, threshold: Products) -> tuple[Longs, Longs, Products]:
        """Query, item and product of everything that reaches the threshold, by query."""
        product = torch.empty((len(small), TILE), dtype=torch.int32)
        products, reached = product.numpy(), np.empty((len(small), TILE), dtype=bool)
        rows, places, values = [], [], []
        for number, tile in enumerate(self.tiles):
            torch._int_mm(small, tile, out=product)
            found = np.flatnonzero(np.greater_equal(products, threshold, out=reached))
            rows.append(found // TILE)
            places.append(found % TILE + number * TILE)
            values.append(products.reshape(-1)[found])
        row, item, value = np.concatenate(rows), self.item[np.concatenate(places)], np.concatenate(values)
        query = np.where(item < 0, BLOCK, row).astype(np.uint16)  # short keys are sorted by their digits
        order = np.argsort(query, kind="stable")[: np.count_nonzero(item >= 0)]
        return row[order], item[order], value[order]

    def _best(self, queries: Floats, kept: Longs, k: int) -> tuple[Floats, Longs]:
        """Scores and ids [queries, k] of the best of the kept items [queries, kept], −1: none; ties by id."""
        item, asked = torch.from_numpy(kept).clamp(min=0), torch.from_numpy(queries)
        scores = torch.empty(item.shape)
        for at in range(0, len(item), ROWS):
            part = slice(at, at + ROWS)
            near = self.vectors.index_select(0, item[part].reshape(-1)).view(*item[part].shape, -1)
            torch.bmm(near, asked[part, :, None], out=scores[part, :, None])
        score = np.where(kept >= 0, scores.numpy(), -np.inf).astype(np.float32)
        order = np.argsort(-score, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(score, order, 1), np.take_along_axis(kept, order, 1)


def _most(row: Longs, item: Longs, product: Products, queries: int, keep: int) -> Longs:
    """[queries, keep]: each query's items of the greatest products, ascending; −1 in front where there are fewer."""
    count = np.bincount(row, minlength=queries)
    width = max(int(count.max(initial=0)), keep)
    place = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    products, items = np.full((queries, width), LOWEST, dtype=np.int32), np.full((queries, width), -1)
    products[row, place], items[row, place] = product, item
    most = np.argpartition(products, width - keep, axis=1)[:, width - keep :]
    return np.sort(np.take_along_axis(items, most, 1), axis=1)
