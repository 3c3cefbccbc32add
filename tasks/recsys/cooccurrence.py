"""Which items go together, and what they make of a history: item-item matrices and the lists they score.

Every matrix here is [items, items] with the strongest neighbours of each row, and every list is the product of a
history's weights and such a matrix. Rows are summed in the order of the history, one row at a time, so a list depends
on nothing but its own history and the matrix: not on the chunks, the other rows or the number of threads.
"""

import numpy as np
import numpy.typing as npt
from scipy import sparse

from tasks.recsys.interactions import DAY, Histories, Interactions, Ints, histories

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.number] | npt.NDArray[np.bool_]
Keys = npt.NDArray[np.uint64]

ROWS = 1 << 14
"""Rows whose neighbours are laid out at a time: bounds the memory."""
CELLS = 1 << 22
"""Products added up at a time: 32 MB, and a few times that on the way."""
SORTED = 1 << 16
"""Keys sorted at a time: they stay in the cache."""

LOW = np.uint64(0xFFFF_FFFF)


def covisitation(interactions: Interactions, cut: int) -> sparse.csr_array:
    """[items, items], float32: decayed co-visitation before the cut, with as many neighbours as `two_steps` keeps."""
    return direct(interactions, cut, neighbours=300)


def direct(
    interactions: Interactions,
    cut: int,
    *,
    window: int = 10,
    gap: float = DAY,
    half_life: float = 60 * DAY,
    backward: float = 0.75,
    damping: float = 0.5,
    neighbours: int = 100,
) -> sparse.csr_array:
    """[items, items], float32: how strongly j follows i within a user's next `window` steps, before the cut.

    Each pair of different items (i, j) at positions p < p + o of one user's time order adds

        1 / o  ·  1 / (1 + (t_j - t_i) / gap)  ·  0.5 ** ((cut - t_j) / half_life)

    to (i, j) and `backward` times that to (j, i); `gap` and `half_life` are milliseconds. A row is then divided by
    its sum ** `damping`: at 0 the items seen most outvote the rest of a history, at 1 all have the same say.
    """
    known = interactions.before(cut)
    forward = sparse.csr_array((known.items, known.items), dtype=np.float64)
    for offset in range(1, window + 1):
        forward = forward + _pairs(known, cut, offset, gap, half_life)
    both = sparse.csr_array(forward + backward * forward.T.tocsr())
    both.data *= np.repeat(_inverse_power(both.sum(axis=1), damping), np.diff(both.indptr))
    blocks = (both[at : at + ROWS] for at in range(0, max(known.items, 1), ROWS))
    nearest = [_rows(*top(block, neighbours), None, block.shape) for block in blocks]
    return sparse.csr_array(sparse.vstack(nearest, format="csr"))


def two_steps(
    first: sparse.csr_array,
    items: npt.NDArray[np.integer],
    *,
    width: int = 50,
    weight: float = 3.0,
    neighbours: int = 300,
) -> sparse.csr_array:
    """[items, items] → [items, items], float32: what a walk from `items` [n] reaches in one step or in two.

        P + weight · N(Q²)

    P is `first` with rows that add up to 1, Q the same of its `width` strongest neighbours of each row, and N leaves
    out the way back to i and makes the rows add up to 1 again. Items that nobody has had together share neighbours:
    on short histories the second step finds what co-visitation itself cannot. A random walk cut off after two
    steps; compare Cooper, Lee, Radinsky, Siantos 2014, Random walks in recommender systems, WWW companion.
    """
    met = np.flatnonzero(np.bincount(first[items].indices))  # what Q² passes through
    step = _stochastic(first[items])
    start = _stochastic(_rows(*top(step, width), None, first.shape))
    onward = _stochastic(_rows(*top(_stochastic(first[met]), width), met, first.shape))
    near, far = top_of_product(start, onward, neighbours + 1)
    far[near == items[:, None]] = 0
    second = _stochastic(_rows(near, far, None, first.shape))
    return _rows(*top(sparse.csr_array(step + weight * second), neighbours), items, first.shape)


def _rows(
    columns: Ints, values: Floats, rows: npt.NDArray[np.integer] | None, shape: tuple[int, int]
) -> sparse.csr_array:
    """[n, k] columns and values that are not 0, at rows [n], ascending, of such a matrix; None: a matrix of n rows."""
    kept = (columns >= 0) & (values > 0)
    height = len(columns) if rows is None else shape[0]
    length = np.zeros(height + 1, dtype=np.int32)
    length[1:][slice(None) if rows is None else rows] = np.count_nonzero(kept, axis=1)
    start = np.cumsum(length, dtype=np.int32)
    matrix = sparse.csr_array((values[kept], columns[kept], start), shape=(height, shape[1]))
    matrix.sort_indices()
    return matrix


def _stochastic(matrix: sparse.csr_array) -> sparse.csr_array:
    """[rows, columns] → the same with rows that add up to 1, or are empty."""
    return _scaled(matrix, _inverse_power(matrix.sum(axis=1), 1.0), np.ones(matrix.shape[1]))


def _inverse_power(values: Numbers, exponent: float) -> npt.NDArray[np.float64]:
    """[n] → [n]: 1 / values ** exponent, and 0 for 0: nothing was seen, so there is nothing to scale."""
    power = np.zeros(len(values))
    positive = values > 0
    power[positive] = values[positive].astype(np.float64) ** -exponent
    return power


def _pairs(known: Interactions, cut: int, offset: int, gap: float, half_life: float) -> sparse.csr_array:
    """[items, items]: the weights of the pairs that lie `offset` steps apart."""
    first, then = slice(None, -offset), slice(offset, None)
    pair = (known.user[first] == known.user[then]) & (known.item[first] != known.item[then])
    source, target = known.item[first][pair], known.item[then][pair]
    start, end = known.time[first][pair], known.time[then][pair]
    weight = 0.5 ** ((cut - end) / half_life) / (1 + (end - start) / gap) / offset
    return sparse.coo_array((weight, (source, target)), shape=(known.items, known.items)).tocsr()


def seen(interactions: Interactions, cut: int, cap: int = 50) -> sparse.csr_array:
    """[users, items], float32: 1 where the item is one of the user's newest `cap` distinct items before the cut.

    The cap bounds the cost of the co-occurrences that are made of it: a user of n items has n² pairs, and a crawler
    has seen them all.
    """
    known = interactions.before(cut)
    everything = histories(known, cut, cap=max(len(known), 1))
    last = np.flatnonzero(latest(everything))
    row = everything.row[last]
    end = np.searchsorted(row, row, "right")
    newest = end - 1 - np.arange(len(row)) < cap
    pair = everything.user[row[newest]], everything.item[last[newest]]
    ones = np.ones(len(pair[0]), dtype=np.float32)
    return sparse.coo_array((ones, pair), shape=(known.users, known.items)).tocsr()


def cosine(binary: sparse.csr_array, *, neighbours: int = 100) -> sparse.csr_array:
    """[users, items] of 0 and 1 → [items, items]: users who saw both / sqrt(users who saw i · users who saw j)."""
    scaled = _scaled(binary, np.ones(binary.shape[0]), _inverse_power(binary.sum(axis=0), 0.5))
    return _neighbours(*top_of_product(scaled.T.tocsr(), scaled, neighbours))


def rp3beta(
    binary: sparse.csr_array, *, alpha: float = 1.0, beta: float = 0.45, neighbours: int = 100
) -> sparse.csr_array:
    """[users, items] of 0 and 1 → [items, items]: a walk from i to a user to j, damped by the popularity of j.

        Σ over users u who saw both of (1 / users of i) ** alpha · (1 / items of u) ** alpha / (users of j) ** beta

    Paudel, Christoffel, Newell, Bernstein 2017, Updatable, accurate, diverse, and scalable recommendations for
    interactive applications, ACM TiiS 7(1). Their first step, from the user to i, is the same for every item of a
    history and changes no order.
    """
    users, items = np.ones(binary.shape[0]), binary.sum(axis=0)
    step = _scaled(binary, users, _inverse_power(items, alpha)).T.tocsr()
    back = _scaled(binary, _inverse_power(binary.sum(axis=1), alpha), _inverse_power(items, beta))
    return _neighbours(*top_of_product(step, back, neighbours))


def _scaled(matrix: sparse.csr_array, rows: Numbers, columns: Numbers) -> sparse.csr_array:
    """[rows, columns], [rows], [columns] → the matrix with each row and column multiplied by its factor.

    In float64: an item's cosine with itself has to round to 1, or noise would order the items of a history.
    """
    data = matrix.data * np.repeat(rows, np.diff(matrix.indptr)) * columns[matrix.indices]
    return sparse.csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)


def latest(asked: Histories) -> npt.NDArray[np.bool_]:
    """[rows]: whether the interaction is its history's newest with its item, so that each item counts once."""
    row, item = asked.row[::-1], asked.item[::-1]
    key = row * (int(item.max(initial=0)) + 1) + item
    _, first = np.unique(key, return_index=True)
    mask = np.zeros(len(key), dtype=bool)
    mask[len(key) - 1 - first] = True
    return mask


def recency(asked: Histories) -> Floats:
    """[rows]: weights that fall with the steps from the end: 1, 1/2, 1/3, … from the newest interaction back."""
    return (1.0 / (1 + asked.age)).astype(np.float32)


def top(matrix: sparse.csr_array, k: int) -> tuple[Ints, Floats]:
    """[rows, columns] → [rows, k] columns and [rows, k] values of each row's `k` largest positive values, best first.

    Ties go to the lower column; rows that have fewer are padded with -1 and 0.
    """
    rows, width = matrix.shape[0], np.diff(matrix.indptr)
    columns, values = np.full((rows, k), -1, dtype=np.int32), np.zeros((rows, k), dtype=np.float32)
    bits = np.ascontiguousarray(matrix.data, dtype=np.float32).view(np.uint32)
    order = np.argsort(-width, kind="stable")  # rows of like width together: little padding
    start = 0
    while start < rows and width[order[start]] > 0:
        widest = int(width[order[start]])
        chunk = order[start : start + max(1, SORTED // widest)]
        place = np.arange(widest)
        index = np.minimum(matrix.indptr[chunk, None] + place, len(bits) - 1)
        padded = np.where(place < width[chunk, None], _packed(bits[index], matrix.indices[index]), 0)
        padded.sort(axis=1)
        best = padded[:, : -k - 1 : -1]
        columns[chunk, : best.shape[1]], values[chunk, : best.shape[1]] = _unpacked(best)
        start += len(chunk)
    return columns, values


def _packed(bits: npt.NDArray[np.uint32], columns: npt.NDArray[np.integer]) -> Keys:
    """[…] keys that sort by value, then by falling column: the bits of a positive float sort as it does."""
    return (bits.astype(np.uint64) << np.uint64(32)) | (LOW - columns.astype(np.uint64))


def _unpacked(keys: Keys) -> tuple[Ints, Floats]:
    """[…] keys → […] columns, -1 where the value is 0, and […] values."""
    value = (keys >> np.uint64(32)).astype(np.uint32).view(np.float32)
    return np.where(value > 0, (LOW - (keys & LOW)).astype(np.int32), np.int32(-1)), value


def top_of_product(left: sparse.csr_array, right: sparse.csr_array, k: int) -> tuple[Ints, Floats]:
    """[rows, inner], [inner, columns] → `top` of their product, which is never whole in memory."""
    cost = np.concatenate([[0], np.cumsum(np.diff(right.indptr)[left.indices])])[left.indptr]
    columns = np.empty((left.shape[0], k), dtype=np.int32)
    values = np.empty((left.shape[0], k), dtype=np.float32)
    start = 0
    while start < left.shape[0]:
        end = max(start + 1, int(np.searchsorted(cost, cost[start] + CELLS, "right")) - 1)
        columns[start:end], values[start:end] = top(left[start:end] @ right, k)
        start = end
    return columns, values


def _neighbours(columns: Ints, values: Floats) -> sparse.csr_array:
    """[items, neighbours] columns and values → [items, items]."""
    return _rows(columns, values, None, (len(columns), len(columns)))


def recommend(asked: Histories, weights: Numbers, neighbours: sparse.csr_array, k: int) -> tuple[Ints, Floats]:
    """[rows] weights of the histories' interactions → [histories, k] items, best first, and [histories, k] scores.

    score(j) = Σ weight · neighbours[item, j] over a history's interactions; only positive scores count. Ties go to
    the lower item; lists that end early are padded with -1 and 0. Items the matrix does not know say nothing.
    """
    known = asked.item < neighbours.shape[0]
    start = np.concatenate([[0], np.cumsum(known)])[asked.start].astype(np.int32)  # or a product makes the matrix int64
    vectors = sparse.csr_array(
        (weights[known].astype(np.float32), asked.item[known], start), shape=(len(asked), neighbours.shape[0])
    )
    return top_of_product(vectors, neighbours, k)
