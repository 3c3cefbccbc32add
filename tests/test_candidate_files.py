from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from tasks.candidate_files import BLOCKS, SCORED, read_blocks, read_list, write_blocks
from tasks.recsys.candidates import SOURCES, Candidates


def block(seed: int, lists: int, k: int = 4) -> Candidates:
    """Lists that end early, ranks and scores where a source named the item."""
    rng = np.random.default_rng(seed)
    item = np.where(np.arange(k) < rng.integers(1, k + 1, lists)[:, None], rng.integers(0, 99, (lists, k)), -1)
    rank = np.where(item[:, :, None] >= 0, rng.integers(0, 9, (lists, k, len(SOURCES))), 0)
    scored = np.array([source.name in SCORED for source in SOURCES])
    score = np.where((rank > 0) & scored, rng.random(rank.shape), 0)
    return Candidates(item.astype(np.int32), rank.astype(np.int16), score.astype(np.float32))


def test_blocks_come_back_as_they_were_written(tmp_path: Path) -> None:
    blocks = [block(1, 3), block(2, 5)]
    ids = np.array([4, 7, 9, 11, 12, 20, 30, 31], dtype=np.int32)
    assert write_blocks(tmp_path / "c.parquet", ids, blocks) == sum((one.item >= 0).sum() for one in blocks)
    found = list(read_blocks(tmp_path / "c.parquet"))
    assert [lists.tolist() for lists, _ in found] == [[4, 7, 9], [11, 12, 20, 30, 31]]
    for (_, pairs), one in zip(found, blocks, strict=True):
        expected = one.pairs()
        for name in ("row", "item", "place", "rank", "score"):
            np.testing.assert_array_equal(getattr(pairs, name), getattr(expected, name))


def test_a_row_group_is_a_block_and_one_without_a_pair_is_passed_over(tmp_path: Path) -> None:
    nothing = Candidates(*(np.zeros_like(part) for part in vars(block(1, 2)).values()))
    nothing.item[:] = -1
    path, ids = tmp_path / "c.parquet", np.arange(10, 18, dtype=np.int32)
    write_blocks(path, ids, [block(1, 3), nothing, block(2, 3)])
    groups = pq.ParquetFile(path / "0000.parquet").metadata
    expected = [len(block(1, 3).pairs()), 0, len(block(2, 3).pairs())]
    assert [groups.row_group(at).num_rows for at in range(groups.num_row_groups)] == expected
    assert [lists.tolist() for lists, _ in read_blocks(path)] == [[10, 11, 12], [15, 16, 17]]


def test_a_list_without_a_pair_is_left_out(tmp_path: Path) -> None:
    some = block(1, 3)
    some.item[1] = -1
    write_blocks(tmp_path / "c.parquet", np.array([5, 6, 7], dtype=np.int32), [some])
    ((lists, pairs),) = read_blocks(tmp_path / "c.parquet")
    assert lists.tolist() == [5, 7]
    assert sorted(set(pairs.row.tolist())) == [0, 1]
    assert pairs.item.tolist() == some.pairs().item.tolist()


def test_one_list_is_read_by_its_number_wherever_it_lies(tmp_path: Path) -> None:
    blocks = [block(seed, 3) for seed in range(BLOCKS + 2)]
    ids = np.arange(5, 5 + 3 * len(blocks), dtype=np.int32)
    write_blocks(tmp_path / "c", ids, blocks)
    for at in (0, 4, 3 * BLOCKS, len(ids) - 1):
        pairs, expected = read_list(tmp_path / "c", int(ids[at])), blocks[at // 3].pairs()
        expected = expected.where(expected.row == at % 3)
        assert pairs.row.tolist() == [0] * len(expected)
        for name in ("item", "place", "rank", "score"):
            np.testing.assert_array_equal(getattr(pairs, name), getattr(expected, name))
    assert len(read_list(tmp_path / "c", 4)) == 0


def test_the_same_candidates_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_blocks(tmp_path / name, np.arange(5, dtype=np.int32), [block(1, 5)])
    one, other = ([path.read_bytes() for path in (tmp_path / name).iterdir()] for name in ("a", "b"))
    assert one == other


def test_many_blocks_are_several_files_in_order(tmp_path: Path) -> None:
    blocks = [block(seed, 1) for seed in range(2 * BLOCKS + 1)]
    write_blocks(tmp_path / "c", np.arange(len(blocks), dtype=np.int32), blocks)
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["0000.parquet", "0001.parquet", "0002.parquet"]
    assert [lists.tolist() for lists, _ in read_blocks(tmp_path / "c")] == [[number] for number in range(len(blocks))]


def test_no_list_is_no_block(tmp_path: Path) -> None:
    assert write_blocks(tmp_path / "c.parquet", np.zeros(0, dtype=np.int32), []) == 0
    assert list(read_blocks(tmp_path / "c.parquet")) == []
