"""`make recommendations`: what is in force, or a named generation, as one Parquet file."""

from pathlib import Path

import polars as pl
import pytest

from tasks import recommendations
from tasks.publication import Generation, Store

DEFAULT = pl.DataFrame({"itemid": [7], "score": [1.0]})


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    path = tmp_path / "home" / "recommendations.db"
    monkeypatch.setenv("NIGHTJAR_RECOMMENDATIONS", str(path))
    return Store(path)


def write(store: Store, name: str, items: list[list[int]]) -> None:
    scores = [[1 / (rank + 2) for rank in range(len(row))] for row in items]
    lists = pl.DataFrame({"list": range(len(items)), "items": items, "scores": scores})
    visitors = pl.DataFrame({"visitorid": [30, 10, 20], "list": [0, 1, 0]})
    store.write(Generation(name, 1, "night", "promoted", "good", "1", None), [lists], [visitors], DEFAULT)


def test_one_row_a_visitor_and_rank_sorted(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(store, "a", [[100, 2], [3]])
    store.switch("a")
    out = tmp_path / "recs.parquet"
    assert recommendations.main([str(out)]) == 0
    table = pl.read_parquet(out)
    assert dict(table.schema) == {"visitorid": pl.Int64, "rank": pl.Int32, "itemid": pl.Int64, "score": pl.Float64}
    assert table.drop("score").rows() == [(10, 1, 3), (20, 1, 100), (20, 2, 2), (30, 1, 100), (30, 2, 2)]
    assert table["score"].to_list() == pytest.approx([1 / 2, 1 / 2, 1 / 3, 1 / 2, 1 / 3], abs=1e-6)
    assert capsys.readouterr().out == f"{out}: 5 rows, 3 visitors\n"


def test_a_generation_that_is_held_can_be_read_by_its_name(store: Store, tmp_path: Path) -> None:
    write(store, "a", [[100], [3]])
    store.switch("a")
    write(store, "held", [[200], [4]])
    assert recommendations.main([str(tmp_path / "recs.parquet"), "--generation", "held"]) == 0
    assert pl.read_parquet(tmp_path / "recs.parquet")["itemid"].to_list() == [4, 200, 200]


def test_a_visitor_with_an_empty_list_has_no_row(store: Store, tmp_path: Path) -> None:
    write(store, "a", [[100], []])
    store.switch("a")
    assert recommendations.main([str(tmp_path / "recs.parquet")]) == 0
    assert pl.read_parquet(tmp_path / "recs.parquet")["visitorid"].to_list() == [20, 30]


def test_what_cannot_be_written_leaves_nothing(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "recs.parquet"
    assert recommendations.main([str(out)]) == 64
    assert "nothing was published yet" in capsys.readouterr().err
    assert not store.path.exists()
    write(store, "a", [[100], [3]])
    assert recommendations.main([str(out)]) == 78
    assert "no generation is in force" in capsys.readouterr().err
    assert recommendations.main([str(out), "--generation", "b"]) == 78
    assert "no generation b in" in capsys.readouterr().err
    store.switch("a")
    out.mkdir()
    assert recommendations.main([str(out)]) == 74
    assert capsys.readouterr().err == f"cannot write {out}: Is a directory\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "recs.parquet"]
