"""Faiss's exact index on every core: FOLDER K BATCH; prints queries a second."""

import sys
import time
from pathlib import Path

import faiss
import numpy as np


def main() -> int:
    """Answers FOLDER/queries.npy from FOLDER/vectors.npy, once the index is warm."""
    folder, k, batch = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    vectors, queries = np.load(folder / "vectors.npy"), np.load(folder / "queries.npy")
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    index.search(queries[:batch], k)
    started = time.perf_counter()
    for at in range(0, len(queries), batch):
        index.search(queries[at : at + batch], k)
    print(len(queries) / (time.perf_counter() - started))
    return 0


if __name__ == "__main__":
    sys.exit(main())
