"""Make data/hotpot_nq from a larger collection: questions a small model has a chance with, and a
corpus that holds their evidence among distractors.

    python data/make.py SOURCE_FOLDER    (questions/*.jsonl.gz and corpora/*.jsonl.gz in it)
      -> data/hotpot_nq/questions.jsonl, data/hotpot_nq/corpus.jsonl.gz

The same source and bm25s version give the same bytes.
"""

import gzip
import hashlib
import io
import sys
from collections.abc import Iterable
from pathlib import Path

import orjson

from mem1.jsonl import read_records
from mem1.text import normalise_answer
from mem1.tools import BM25Index

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
    wanted: set[str] = set()
    for name in dict.fromkeys(CORPORA.values()):
        index = BM25Index.open(source / f"corpora/corpus_{name}.jsonl.gz")
        for dataset in (d for d, corpus in CORPORA.items() if corpus == name):
            path = source / f"questions/{dataset}_dev.jsonl.gz"
            records = shuffled([record for _, record in read_records(path)])
            chosen = [r for r in records if within_reach(r, index)][: NUM_QUESTIONS[dataset]]
            questions += chosen
            for record in chosen:
                found = index.best(record["question"], top_k=NUM_DISTRACTORS)
                wanted |= {passage.id for passage in found}
    titles = {title for record in questions for title in record["supporting_titles"]}
    passages = [
        record
        for name in dict.fromkeys(CORPORA.values())
        for _, record in read_records(source / f"corpora/corpus_{name}.jsonl.gz")
    ]
    kept = [p for p in passages if p["id"] in wanted or title_of(p) in titles]
    ids = {p["id"] for p in kept}
    spare = shuffled(p for p in passages if p["id"] not in ids)
    kept += spare[: NUM_PASSAGES - len(kept)]
    (target / "questions.jsonl").write_bytes(to_jsonl(shuffled(questions)))
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=9, filename="", mtime=0) as file:
        file.write(to_jsonl(shuffled(kept)))
    (target / "corpus.jsonl.gz").write_bytes(packed.getvalue())


def within_reach(record: dict, index: BM25Index) -> bool:
    """Whether the question itself, as a query, finds a gold title and a short answer."""
    answers = [normalise_answer(answer) for answer in record["golden_answers"]]
    short = all(0 < len(answer.split()) <= MAX_ANSWER_WORDS for answer in answers)
    if not short or {"yes", "no"} & set(answers):
        return False
    found = index.best(record["question"], top_k=NEAR)
    texts = [f" {normalise_answer(passage.text)} " for passage in found]
    answered = any(f" {answer} " in text for answer in answers for text in texts)
    return answered and any(p.title in record["supporting_titles"] for p in found)


def title_of(record: dict) -> str:
    return record["contents"].partition("\n")[0].strip('"')


def shuffled(records: Iterable[dict]) -> list[dict]:
    """Seeded, and the same in every version of Python."""
    return sorted(records, key=lambda r: hashlib.blake2b(f"{SEED}/{r['id']}".encode()).hexdigest())


def to_jsonl(records: Iterable[dict]) -> bytes:
    return b"".join(orjson.dumps(record) + b"\n" for record in records)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).parent / "hotpot_nq")
