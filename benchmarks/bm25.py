"""How fast is BM25Index, and how much faster than scoring every passage in turn?

    python benchmarks/bm25.py CORPUS QUESTIONS    (both JSONL.gz)
      -> docs/results/bm25.json: ms a query, seconds to load, ratio to rank_bm25's way of scoring

One core: run with OMP_NUM_THREADS=1. Each query is a real question, run once.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import orjson

from mem1.files import atomic_write, read_lines
from mem1.tasks import load_tasks
from mem1.tools import BM25Index, Passage
from mem1.tools.bm25 import _words as words_of

RESULT = Path(__file__).parent.parent / "docs/results/bm25.json"
NUM_SCANNED = 20
"""Queries the slow scorer gets."""
TOP_K = 3


class Scan:
    """BM25 as rank_bm25 does it: for each word of the query, look at every passage."""

    def __init__(self, corpus: Path) -> None:
        records = (orjson.loads(line) for _, line in read_lines(corpus))
        self._counts = [Counter(words_of(record["contents"])) for record in records]
        lengths = np.array([counts.total() for counts in self._counts])
        self._norm = 1.5 * (0.25 + 0.75 * lengths / lengths.mean())
        self._num_with = Counter(word for counts in self._counts for word in counts)

    def top(self, query: str) -> list[int]:
        scores = np.zeros(len(self._counts))
        for word in words_of(query):
            counts = np.array([counts.get(word, 0) for counts in self._counts])
            num_with = self._num_with[word]
            idf = np.log(1 + (len(self._counts) - num_with + 0.5) / (num_with + 0.5))
            scores += idf * counts / (counts + self._norm)
        return list(np.argsort(-scores, kind="stable")[:TOP_K])


async def search(index: BM25Index, queries: list[str]) -> tuple[list[float], list[list[Passage]]]:
    """Seconds of each search, one after the other, and what was found."""
    seconds, found = [], []
    for query in queries:
        started = time.perf_counter()
        found.append(await index.search(query, top_k=TOP_K))
        seconds.append(time.perf_counter() - started)
    return seconds, found


def main(corpus: Path, questions: Path) -> None:
    queries = [task.objectives[0].question for task in load_tasks(questions)]
    with tempfile.TemporaryDirectory() as cache:
        started = time.perf_counter()
        BM25Index.open(corpus, cache_dir=Path(cache))
        built = time.perf_counter()
        index = BM25Index.open(corpus, cache_dir=Path(cache))
        loaded = time.perf_counter()
        seconds, found = asyncio.run(search(index, queries))
    scan = Scan(corpus)
    ids = [str(orjson.loads(line)["id"]) for _, line in read_lines(corpus)]
    scan_started = time.perf_counter()
    scanned = [scan.top(query) for query in queries[:NUM_SCANNED]]
    scan_s = (time.perf_counter() - scan_started) / NUM_SCANNED
    agree = [
        [ids[row] for row in rows] == [passage.id for passage in passages]
        for rows, passages in zip(scanned, found[:NUM_SCANNED], strict=True)
    ]
    result = {
        "command": f"OMP_NUM_THREADS=1 python benchmarks/bm25.py {corpus} {questions}",
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "num_passages": len(index),
        "num_queries": len(queries),
        "build_s": round(built - started, 2),
        "load_s": round(loaded - built, 3),
        "query_ms_mean": round(1000 * float(np.mean(seconds)), 2),
        "query_ms_p99": round(1000 * float(np.quantile(seconds, 0.99)), 2),
        "scan_query_ms_mean": round(1000 * scan_s, 1),
        "times_faster_than_scan": round(scan_s / float(np.mean(seconds[:NUM_SCANNED])), 1),
        "same_top_3_as_scan": float(np.mean(agree)),
    }
    atomic_write(RESULT, orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n")
    print(orjson.dumps(result, option=orjson.OPT_INDENT_2).decode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
