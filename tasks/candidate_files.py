"""The adapter to a shard's candidates: Parquet with a row a pair, a row group a block of lists."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.recsys.candidates import SOURCES, Candidates, Pairs
from tasks.recsys.interactions import Ints

SCORED = ("covisitation", "two_tower")
"""Sources whose own score says more than their rank."""
RANKS = [f"{source.name}_rank" for source in SOURCES]
SCORES = [f"{source.name}_score" for source in SOURCES if source.name in SCORED]
SCHEMA = pa.schema(
    [("list", pa.int32()), ("item", pa.int32()), ("place", pa.int16())]
    + [(name, pa.int16()) for name in RANKS]
    + [(name, pa.float32()) for name in SCORES]
)


def write_blocks(path: Path, ids: Ints, blocks: Iterable[Candidates]) -> int:
    """Writes blocks of candidates, whose lists have the ids [lists] in order; returns the number of pairs."""
    at = pairs = 0
    scored = [index for index, source in enumerate(SOURCES) if source.name in SCORED]
    with pq.ParquetWriter(path, SCHEMA, compression="zstd", use_dictionary=["list", *RANKS]) as writer:
        for block in blocks:
            rows = block.pairs()
            columns = [ids[at + rows.row], rows.item, rows.place, *rows.rank.T, *rows.score[:, scored].T]
            arrays = [pa.array(np.ascontiguousarray(column)) for column in columns]
            writer.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA), row_group_size=max(1, len(rows)))
            at, pairs = at + len(block), pairs + len(rows)
    return pairs


def read_blocks(path: Path) -> Iterator[tuple[Ints, Pairs]]:
    """Blocks as they were written: the ids [lists] of the lists that have a pair, and the pairs."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            column = {name: table[name].to_numpy() for name in SCHEMA.names}
            if not len(column["list"]):
                continue
            change = np.flatnonzero(np.diff(column["list"], prepend=-1))
            row = np.repeat(np.arange(len(change), dtype=np.int32), np.diff(np.r_[change, len(column["list"])]))
            score = np.zeros((len(row), len(SOURCES)), dtype=np.float32)
            for index, source in enumerate(SOURCES):
                if source.name in SCORED:
                    score[:, index] = column[f"{source.name}_score"]
            rank = np.stack([column[name] for name in RANKS], axis=1)
            yield column["list"][change], Pairs(row, column["item"], column["place"], rank, score)
