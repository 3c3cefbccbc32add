"""The adapter to the category tree's file: reads it, and refuses what is no tree or does not fit the items."""

import logging

import numpy as np
import polars as pl

from tasks import bad_rows, clickstream
from tasks.clickstream import PROPERTY_COLUMNS, TREE_COLUMNS, Clickstream, whole
from tasks.failures import BadData
from tasks.intake import CATEGORY, Database
from tasks.recsys.category_tree import NO_PARENT, CategoryTree

log = logging.getLogger(__name__)


def read_tree(db: Database, source: Clickstream, allowed: float) -> CategoryTree:
    """The categories with their parents; without a file, and that is said, there are none.

    `allowed`: share of the categories whose parent may be missing.
    """
    if not source.tree:
        log.info("no category_tree.csv in %s: paths of categories are left out", source.folder)
    found: set[tuple[int, int]] = set()
    for path in source.tree:
        clickstream.check(path, TREE_COLUMNS)
        scan = clickstream.scan(path, TREE_COLUMNS)
        query = f"SELECT {whole('categoryid')}, coalesce({whole('parentid')}, {NO_PARENT}) FROM ({scan})"
        rows = clickstream.run(db, path, query)
        clickstream.lines_left_out(db, path)
        for problem in bad_rows.problems(path, TREE_COLUMNS):
            raise BadData(f"{problem}; correct the row")
        found |= set(rows)
    table = np.array(sorted(found), dtype=np.int32).reshape(-1, 2)
    tree = CategoryTree(table[:, 0].copy(), table[:, 1].copy())
    _check(tree, source, allowed)
    return tree


def _check(tree: CategoryTree, source: Clickstream, allowed: float) -> None:
    twice = tree.category[1:][tree.category[1:] == tree.category[:-1]]
    if len(twice):
        parents = tree.parent[tree.category == twice[0]]
        raise BadData(
            f"{_line(source, {'categoryid': str(twice[0]), 'parentid': _text(parents[-1])})}: categoryid = '{twice[0]}'"
            f" has the parents {' and '.join(_text(one) or 'none' for one in parents)}, expected one; correct the tree"
        )
    if cycle := tree.cycle():
        chain = " → ".join(map(str, [*cycle, cycle[0]]))
        raise BadData(
            f"{_line(source, {'categoryid': str(cycle[0])})}: categoryid = '{cycle[0]}' is its own ancestor ({chain}), "
            "expected a tree; correct one of these rows"
        )
    orphans = tree.orphans()
    if len(orphans) > allowed * len(tree):
        parent = tree.parent[np.searchsorted(tree.category, orphans[0])]
        raise BadData(
            f"{_line(source, {'categoryid': str(orphans[0])})}: parentid = '{parent}', expected a category of the "
            f"tree ({len(orphans):,} of {len(tree):,} categories lack their parent, allowed {allowed:.2%}; add them, "
            "or raise max_orphan_share)"
        )


def check_items(source: Clickstream, tree: CategoryTree, items: pl.DataFrame, allowed: float) -> None:
    """Fails when more than the allowed share of the items with a category have one that is not in the tree."""
    having = items.filter(pl.col("category") >= 0)["category"]
    strangers = having.filter(~having.is_in(tree.category.tolist())).sort()
    if not len(tree) or not len(strangers):
        return
    told = f"{len(strangers):,} of {len(having):,} items have such a one"
    if len(strangers) <= allowed * len(having):
        log.warning("category %d is not in the tree; %s", strangers[0], told)
        return
    where = next(
        f"{path.name}:{line}"
        for path in source.properties
        if (line := bad_rows.line_of(path, PROPERTY_COLUMNS, {"property": CATEGORY, "value": str(strangers[0])}))
    )
    raise BadData(
        f"{where}: value = '{strangers[0]}' of the property {CATEGORY}, expected a category of the tree ({told}, "
        f"allowed {allowed:.2%}; add it, or raise max_orphan_share)"
    )


def _line(source: Clickstream, wanted: dict[str, str]) -> str:
    """file:line of the first row of the tree with these values."""
    return next(f"{path.name}:{line}" for path in source.tree if (line := bad_rows.line_of(path, TREE_COLUMNS, wanted)))


def _text(parent: int) -> str:
    return "" if parent == NO_PARENT else str(parent)
