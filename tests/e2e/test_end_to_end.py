"""benchmarks/end_to_end.py: its expert, and all of its stages with a policy that knows nothing."""

import gzip
import json
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from end_to_end import CORPORA, TESTS, TRAINING, Plan, dry_run, run
from qa_expert import Expert, found

from mem1.chat import ByteRenderer
from mem1.engines import Request
from mem1.train.logbook import METRICS_FILE, read_metrics
from mem1.train.tiny import make_tiny
from mem1.types import Objective, Sampling, Task

DATA = Path(__file__).parents[2] / "data/hotpot_nq"
DRACULA = Objective(question="Who wrote Dracula?", answers=("Abraham Stoker", "Bram Stoker"))
JAWS = Objective(question="When was Jaws shown?", answers=("1975",))


def request(context: str) -> Request:
    ids = ByteRenderer().encode(context)
    return Request(prompt_ids=ids, messages=(), max_tokens=99, stop=(), sampling=Sampling())


def test_the_expert_searches_notes_what_it_was_shown_and_answers():
    expert = Expert(Task(id="t", objectives=(DRACULA, JAWS)), ByteRenderer())
    contexts = (
        "Question: Dracula by Bram Stoker",
        "<information>Dracula, by Bram Stoker.</information>",
        "1975 <information>Jaws is a film.</information>",
    )
    assert [expert(request(context)) for context in contexts] == [
        "<think>Known: nothing. I search for 1.</think>\n<search>Who wrote Dracula?</search>",
        "<think>Known: 1. Bram Stoker. I search for 2.</think>\n"
        "<search>When was Jaws shown?</search>",
        "<think>Known: 1. Bram Stoker; 2. unknown.</think>\n<answer>Bram Stoker; unknown</answer>",
    ]


def test_an_answer_is_found_word_by_word():
    assert found(JAWS, passages="Jaws, in 1975.") == "1975"
    assert found(JAWS, passages="Jaws, in 19750.") == "unknown"


@pytest.fixture
def plan(tmp_path) -> Plan:
    """A few questions in the place of all, and a policy of random weights."""
    lines = (DATA / "questions.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "questions").mkdir()
    (tmp_path / "corpora").mkdir()
    for number, name in enumerate((*TRAINING, *TESTS)):
        part = b"".join(lines[6 * number :][:6])
        (tmp_path / f"questions/{name}.jsonl.gz").write_bytes(gzip.compress(part))
    passages = gzip.decompress((DATA / "corpus.jsonl.gz").read_bytes()).splitlines(keepends=True)
    for number, name in enumerate(CORPORA):
        part = b"".join(passages[number::2])
        (tmp_path / f"corpora/{name}.jsonl.gz").write_bytes(gzip.compress(part))
    make_tiny(model := tmp_path / "model", seed=0, hidden=16, layers=1, window=16384)
    sizes = {"prompt": 5000, "internal_state": 110, "action": 130, "observation": 600}
    return Plan(
        data=tmp_path,
        out=tmp_path / "out",
        num_tests=1,
        minutes=0,
        overrides=(
            *(f"engine.{name}" for name in (f"model={model}", "device=cpu", "dtype=float32")),
            *(f"budget.{name}={size}" for name, size in sizes.items()),
            *("run.max_turns=3", "train.batch_size=2", "train.group_size=2"),
            "train.optimizer.warmup=0",
        ),
    )


def test_all_stages_run_end_in_time_and_are_not_done_twice(plan, tmp_path):
    results = tmp_path / "results"
    for _ in range(2):
        run(plan, results=results)
    summary = json.loads((results / "summary.json").read_bytes())
    assert summary["expert"]["episodes"] == 9
    assert summary["expert"]["right_in_all"] > 0
    assert (summary["sft"]["steps"], summary["grpo"]["steps"]) == (1, 1)
    (imitated,) = read_metrics(plan.out / "sft" / METRICS_FILE)
    assert imitated["reward"] == 2
    report = (results / "horizon.md").read_text()
    for name in ("came", "imitated", "learned"):
        assert report.count(f"| {name} |") >= 8
    assert (results / "curves.svg").read_bytes().startswith(b"<?xml")


def test_a_dry_run_says_what_would_be_done(plan, capsys):
    dry_run(plan)
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("sft: at most 150 steps of")
    assert "test: full, N = 8: 1 tasks, 3 turns, contexts of up to the window" in told[-1]
