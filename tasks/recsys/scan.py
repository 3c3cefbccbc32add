"""Search of a large catalogue: every item is compared in 8 bits, the best of them in 32.

Products of bytes cost a fifth of products of floats where the CPU has instructions for them (VNNI), and their error is
small beside the distance between the k-th item and the 2k-th.  So few items a query are compared exactly; compare ScaNN
(Guo et al., ICML 2020).  What is lost of the exact lists is measured each night.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import faiss
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
NAMED, KEPT, ENOUGH = 2.0, 1.5, 1.05
"""Times k: items that the threshold is to let through, that are compared exactly, that are enough to be sure of k."""
WORTH = 150
"""Items for each of the k, below which the exact index is as fast."""
LOWEST, HIGHEST = np.iinfo(np.int32).min, np.iinfo(np.int32).max

with warnings.catch_warnings():  # the first sparse tensor of a process says that its kind may still change
    warnings.simplefilter("ignore")
    torch.eye(1).to_sparse_csr()


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
    """each [TILE, dim], int8, of items shuffled, so that some tiles are a sample of all"""
    unit: Floats
    """[dim], what 1 stands for"""
    item: Longs
    """[tiles · TILE], which item is where; −1 beyond the last"""

    @classmethod
    def of(cls, exact: Any) -> "Scan":
        """A scan over the vectors of an exact Faiss index."""
        items, dim = exact.ntotal, exact.d
        vectors = faiss.rev_swig_ptr(exact.get_xb(), items * dim).reshape(items, dim)  # no copy: the index owns them
        places = -(-items // TILE) * TILE
        item = np.full(places, -1)
        item[:items] = np.random.default_rng(0).permutation(items)
        largest = np.maximum(vectors.max(axis=0, initial=0), -vectors.min(axis=0, initial=0))
        unit = np.maximum(largest / 127, np.finfo(np.float32).tiny).astype(np.float32)
        small = np.zeros((places, -(-dim // 4) * 4), dtype=np.int8)  # bytes are multiplied by fours
        for at in range(0, items, TILE):  # one tile in floats at a time
            some = item[at : min(at + TILE, items)]
            small[at : at + len(some), :dim] = np.rint(vectors[some] / unit)
        tiles = tuple(torch.from_numpy(small[at : at + TILE]) for at in range(0, places, TILE))
        return cls(exact, torch.from_numpy(vectors), tiles, unit, item)

    @property
    def d(self) -> int:
        """Dimensions, as Faiss calls them."""
        return self.vectors.shape[1]

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
        row, keys = self._above(small, threshold)
        unsure = np.bincount(row, minlength=len(queries)) < ENOUGH * k
        scores, ids = self._best(queries, _most(row, keys, len(queries), round(KEPT * k)), k)
        if unsure.any():
            scores[unsure], ids[unsure] = self.exact.search(np.ascontiguousarray(queries[unsure]), k)
        return scores, ids

    def _small(self, queries: Floats) -> Tensor:
        """[dim, queries] in bytes, each query in a unit of its own."""
        scaled = queries * self.unit
        largest = np.abs(scaled).max(axis=1, keepdims=True, initial=np.finfo(np.float32).tiny)
        small = np.zeros((self.tiles[0].shape[1], len(queries)), dtype=np.int8)
        small[: queries.shape[1]] = np.rint(scaled / (largest / 127)).T
        return torch.from_numpy(small)

    def _threshold(self, small: Tensor, k: int) -> Products:
        """[queries] products that about `NAMED` · k items reach, by a sample; none does where the best are alike."""
        tiles, queries = self.tiles[: max(FEWEST_TILES, len(self.tiles) // SAMPLE)], small.shape[1]
        best = [torch._int_mm(tile, small).numpy().reshape(GROUP, -1, queries).max(axis=0) for tile in tiles]
        groups = np.ascontiguousarray(np.concatenate(best).T)
        place = min(groups.shape[1], max(1, round(NAMED * k * len(tiles) / len(self.tiles))))
        threshold = np.partition(groups, -place, axis=1)[:, -place]
        alike = (groups >= threshold[:, None]).sum(axis=1) > 2 * place
        return np.where(alike, HIGHEST, threshold)

    def _above(self, small: Tensor, threshold: Products) -> tuple[Longs, Longs]:
        """Query, and product and item packed, of everything that reaches the threshold, by query."""
        queries = small.shape[1]
        product = torch.empty((TILE, queries), dtype=torch.int32)
        products, reached = product.numpy(), np.empty((TILE, queries), dtype=bool)
        eights = reached.reshape(-1).view(np.uint64)
        some = np.empty(eights.shape, dtype=bool)
        rows, places, values = [], [], []
        for number, tile in enumerate(self.tiles):
            torch._int_mm(tile, small, out=product)
            np.greater_equal(products, threshold, out=reached)
            # few reach it: most are passed over eight at a time
            near = np.flatnonzero(np.not_equal(eights, 0, out=some))
            inside = np.flatnonzero(eights[near].view(bool))
            found = near[inside // 8] * 8 + inside % 8
            rows.append(found % queries)
            places.append(found // queries + number * TILE)
            values.append(products.reshape(-1)[found])
        row, item, value = np.concatenate(rows), self.item[np.concatenate(places)], np.concatenate(values)
        query = np.where(item < 0, BLOCK, row).astype(np.uint16)  # short keys are sorted by their digits
        order = np.argsort(query, kind="stable")[: np.count_nonzero(item >= 0)]
        return row[order], _packed(value, item)[order]

    def _best(self, queries: Floats, kept: Longs, k: int) -> tuple[Floats, Longs]:
        """Scores and ids [queries, k] of the best of the kept items [queries, kept], −1: none; ties by id."""
        start, item = torch.arange(0, kept.size + 1, kept.shape[1]), torch.from_numpy(kept).clamp(min=0)
        size = len(queries), len(self.vectors)
        wanted = torch.sparse_csr_tensor(
            start, item.view(-1), torch.zeros(kept.size), size, check_invariants=False
        )  # an item may be named twice, in no order: only where is read of it
        product = torch.sparse.sampled_addmm(wanted, torch.from_numpy(queries), self.vectors.T, beta=0.0)
        score = np.where(kept >= 0, product.values().view(kept.shape).numpy(), np.float32(-np.inf))
        key = _packed(_ordered(score), ~kept)
        key.sort(axis=1)
        best, place = _unpacked(key[:, : -k - 1 : -1])
        return _ordered(best).view(np.float32), ~place


def _most(row: Longs, keys: Longs, queries: int, keep: int) -> Longs:
    """[queries, keep]: each query's items of the greatest products, ascending; −1 in front where there are fewer."""
    count = np.bincount(row, minlength=queries)
    width = max(int(count.max(initial=0)), keep)
    place = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    padded = np.full((queries, width), _packed(np.array(LOWEST), np.array(-1)))
    padded[row, place] = keys
    most = np.partition(padded, width - keep, axis=1)[:, width - keep :]
    return np.sort(_unpacked(most)[1], axis=1)


def _ordered(value: Floats | Products) -> Products:
    """[…] floats → […] integers that sort as they do; given those, the bits of the floats."""
    bits = value.view(np.int32)
    return bits ^ ((bits >> 31) & HIGHEST)


def _packed(high: npt.NDArray[np.signedinteger], low: npt.NDArray[np.signedinteger]) -> Longs:
    """Two integers of 32 bits in one: sorts by the first, then by the bits of the second."""
    return (high.astype(np.int64) << 32) | (low.astype(np.int64) & 0xFFFF_FFFF)


def _unpacked(keys: Longs) -> tuple[Products, Longs]:
    """The two that were packed."""
    return (keys >> 32).astype(np.int32), keys.astype(np.int32).astype(np.int64)
