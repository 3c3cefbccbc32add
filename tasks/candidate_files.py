"""The adapter to a shard's candidates: a folder of Parquet files with a row a pair, a row group a block of lists."""

import itertools
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
BLOCKS = 16
"""Blocks of a file: about 100 MB where a list has 300 candidates."""
SCHEMA = pa.schema(
    [("list", pa.int32()), ("item", pa.int32()), ("place", pa.int16())]
    + [(name, pa.int16()) for name in RANKS]
    + [(name, pa.float32()) for name in SCORES]
)


def write_blocks(folder: Path, ids: Ints, blocks: Iterable[Candidates]) -> int:
    """Writes blocks of candidates, whose lists have the ids [lists] in order; returns the number of pairs."""
    folder.mkdir(parents=True)
    left, at, pairs = iter(blocks), 0, 0
    for number in itertools.count():
        part = list(itertools.islice(left, 1))
        if not part and number:
            return pairs
        with pq.ParquetWriter(
            _file(folder, number), SCHEMA, compression="zstd", use_dictionary=["list", *RANKS]
        ) as writer:
            for block in itertools.chain(part, itertools.islice(left, BLOCKS - 1)):
                rows = block.pairs()
                writer.write_table(_table(ids[at + rows.row], rows), row_group_size=max(1, len(rows)))
                at, pairs = at + len(block), pairs + len(rows)
    return pairs


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:04d}.parquet"


def _table(ids: Ints, rows: Pairs) -> pa.Table:
    scored = [index for index, source in enumerate(SOURCES) if source.name in SCORED]
    columns = [ids, rows.item, rows.place, *rows.rank.T, *rows.score[:, scored].T]
    return pa.Table.from_arrays([pa.array(np.ascontiguousarray(column)) for column in columns], schema=SCHEMA)


def read_blocks(folder: Path) -> Iterator[tuple[Ints, Pairs]]:
    """Blocks as they were written: the ids [lists] of the lists that have a pair, and the pairs."""
    for path in sorted(folder.iterdir()):
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                if table.num_rows:
                    yield _block(table)


def read_list(folder: Path, number: int) -> Pairs:
    """The pairs of one list; none where it is empty or not in this folder.  Only its own row group is read."""
    table = pq.read_table(folder, schema=SCHEMA, filters=[("list", "=", number)], partitioning=None)
    return _block(table.combine_chunks())[1]


def _block(table: pa.Table) -> tuple[Ints, Pairs]:
    column = {name: table[name].to_numpy() for name in SCHEMA.names}
    change = np.flatnonzero(np.diff(column["list"], prepend=-1))
    row = np.repeat(np.arange(len(change), dtype=np.int32), np.diff(np.r_[change, len(column["list"])]))
    score = np.zeros((len(row), len(SOURCES)), dtype=np.float32)
    for index, source in enumerate(SOURCES):
        if source.name in SCORED:
            score[:, index] = column[f"{source.name}_score"]
    rank = np.stack([column[name] for name in RANKS], axis=1)
    return column["list"][change], Pairs(row, column["item"], column["place"], rank, score)
