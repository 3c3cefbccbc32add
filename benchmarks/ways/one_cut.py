"""Nightjar's preparation of a single cut, as of the end of the data: every check, every output of that cut."""

import sys
from pathlib import Path

from tasks import clickstream, dataset_files, intake, property_values, storage
from tasks.recsys import splits


def main(data: str, work: Path) -> None:
    """Reads the files of `data` and writes the splits, the encoders and one cut's folder."""
    source, out = clickstream.find(data, work), work / "dataset"
    storage.files_digest((path.name, path) for path in source.files)
    with intake.opened(work) as db:
        events = intake.read_events(db, source)
        as_of = intake.newest_event(db) + 1
        intake.reject_without_id(db, events, as_of)
        intake.keep_distinct(db, events, as_of)
        rows, users, items, time = intake.encode(db)
        dataset_files.write_interactions(out, rows, splits.quantile_cuts(time, 0.70, 0.85))
        dataset_files.write_encoders(out, users, items)
        intake.read_properties(db, source, as_of)
        for cut, values in property_values.as_of_cuts(db, items, [as_of], 10):
            dataset_files.write_cut(out, rows, values, cut, 50)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
