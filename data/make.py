"""Make data/hotpot_nq from a larger collection: questions a small model has a chance with, and a
corpus that holds their evidence among distractors.

    python data/make.py SOURCE_FOLDER    (questions/*.jsonl.gz and corpora/*.jsonl.gz in it)
      -> data/hotpot_nq/questions.jsonl, data/hotpot_nq/corpus.jsonl.gz

The same source and bm25s version give the same bytes.
"""

import asyncio
import gzip
import hashlib
import sys
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import orjson

from mem1.files import atomic_write, read_lines
from mem1.text import normalise_answer
from mem1.tools import BM25Index, Passage

SEED = 1
NUM_QUESTIONS = {"hotpotqa": 40, "2wikimultihopqa": 20, "nq": 40}
CORPORA = {"hotpotqa": "multihop", "2wikimultihopqa": "multihop", "nq": "nq"}
NUM_DISTRACTORS = 20
"""Best BM25 passages of each question that are shipped with it."""
NUM_PASSAGES = 3500
MAX_ANSWER_WORDS = 4
NEAR = 5
"""An answer must stand in one of so many best passages, and one must be of a gold title."""


def main(source: Path, target: Path) -> None:
    """Write both files. Args: `source`, the large collection; `target`, an existing folder."""
    questions: list[dict] = []
    passages: list[dict] = []
    near: set[str] = set()
    for name in dict.fromkeys(CORPORA.values()):
        corpus = source / f"corpora/corpus_{name}.jsonl.gz"
        index = BM25Index.open(corpus)
        passages += records_of(corpus)
        for dataset in (d for d, of in CORPORA.items() if of == name):
            asked = shuffled(records_of(source / f"questions/{dataset}_dev.jsonl.gz"))
            chosen = [record for record in asked if within_reach(record, index=index)]
            chosen = chosen[: NUM_QUESTIONS[dataset]]
            questions += chosen
            for record in chosen:
                near |= {p.id for p in best(index, record["question"], top_k=NUM_DISTRACTORS)}
    gold = {title for record in questions for title in record["supporting_titles"]}
    kept = {p["id"]: p for p in passages if p["id"] in near or title_of(p) in gold}
    spare = (p for p in shuffled(passages) if p["id"] not in kept)
    kept |= {p["id"]: p for p in islice(spare, NUM_PASSAGES - len(kept))}
    atomic_write(target / "questions.jsonl", to_jsonl(shuffled(questions)))
    # No time stamp and no name inside, so that the same passages are the same bytes.
    packed = gzip.compress(to_jsonl(shuffled(kept.values())), mtime=0)
    atomic_write(target / "corpus.jsonl.gz", packed)


def within_reach(record: dict, *, index: BM25Index) -> bool:
    """Whether the question itself, as a query, finds a gold title and a short answer."""
    answers = [normalise_answer(answer) for answer in record["golden_answers"]]
    short = all(0 < len(answer.split()) <= MAX_ANSWER_WORDS for answer in answers)
    if not short or {"yes", "no"} & set(answers):
        return False
    found = best(index, record["question"], top_k=NEAR)
    texts = [f" {normalise_answer(passage.text)} " for passage in found]
    answered = any(f" {answer} " in text for answer in answers for text in texts)
    return answered and any(p.title in record["supporting_titles"] for p in found)


def best(index: BM25Index, query: str, *, top_k: int) -> list[Passage]:
    return asyncio.run(index.search(query, top_k=top_k))


def records_of(path: Path) -> list[dict]:
    return [orjson.loads(line) for _, line in read_lines(path)]


def title_of(record: dict) -> str:
    return Passage.of_contents(record["id"], record["contents"], score=0.0).title


def shuffled(records: Iterable[dict]) -> list[dict]:
    """Seeded, and the same in every version of Python."""
    return sorted(records, key=lambda r: hashlib.blake2b(f"{SEED}/{r['id']}".encode()).digest())


def to_jsonl(records: Iterable[dict]) -> bytes:
    return b"".join(orjson.dumps(record) + b"\n" for record in records)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).parent / "hotpot_nq")
