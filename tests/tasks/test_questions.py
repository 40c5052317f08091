"""Question files: what can be read, and what is said about the rest."""

import gzip
import sys

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mem1.errors import DataError, MissingExtraError
from mem1.tasks import load_tasks, question_text, write_tasks
from mem1.types import Objective, Task

RECORD = {"id": "q1", "question": "Capital of France?", "golden_answers": ["Paris"]}
PARIS = Objective(question="Capital of France?", answers=("Paris",))
ROME = Objective(question="Capital of Italy?", answers=("Rome", "Roma"))


def write(path, *records):
    data = b"".join(r if isinstance(r, bytes) else orjson.dumps(r) + b"\n" for r in records)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def training_row(prompt, target):
    return {
        "data_source": "nq",
        "prompt": [{"role": "user", "content": prompt}],
        "reward_model": {"style": "rule", "ground_truth": {"target": target}},
        "extra_info": {"index": 7, "split": "train"},
    }


@pytest.mark.parametrize("name", ["nq.jsonl", "nq.jsonl.gz"])
def test_a_question_is_a_task_of_one_objective_and_its_source_is_the_file(tmp_path, name):
    tasks = load_tasks(write(tmp_path / name, RECORD))
    assert tasks == [Task(id="q1", objectives=(PARIS,), source="nq")]


def test_a_record_may_name_its_source_and_blank_lines_are_passed_over(tmp_path):
    path = write(tmp_path / "a.jsonl", b"\n", {**RECORD, "source": "hotpotqa"}, b"  \n")
    assert [task.source for task in load_tasks(path)] == ["hotpotqa"]


def test_parquet_holds_the_same_questions(tmp_path):
    pq.write_table(pa.Table.from_pylist([RECORD]), tmp_path / "nq.parquet")
    assert load_tasks(tmp_path / "nq.parquet") == [Task(id="q1", objectives=(PARIS,), source="nq")]


@pytest.mark.parametrize(
    ("prompt", "target", "objectives"),
    [
        ("Answer.\nQuestion: Capital of France?\n", ["Paris"], (PARIS,)),
        ("Answer.\nQuestion: Capital of France?\n", [["Paris"]], (PARIS,)),
        (
            "Answer the questions: Capital of France?; Capital of Italy?",
            [["Paris"], ["Rome", "Roma"]],
            (PARIS, ROME),
        ),
        (
            "Question: Who; what?",
            ["me"],
            (Objective(question="Who; what?", answers=("me",)),),
        ),
    ],
)
def test_training_rows_give_their_questions_and_aliases(tmp_path, prompt, target, objectives):
    path = write(tmp_path / "train.jsonl", training_row(prompt, target))
    assert load_tasks(path) == [Task(id="nq-7", objectives=objectives, source="nq")]


def test_written_tasks_are_read_back_as_they_were(tmp_path):
    tasks = [Task(id="t", objectives=(PARIS, ROME), source="a+b", metadata={"question_ids": [1]})]
    write_tasks(tasks, tmp_path / "deep" / "tasks.jsonl")
    assert load_tasks(tmp_path / "deep" / "tasks.jsonl") == tasks


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b'{"id": "q2", "quest', r"a\.jsonl:2: not JSON"),
        (b"\xff\xfe\n", r"a\.jsonl:2: not JSON"),
        ([1, 2], r"a\.jsonl:2: not a record"),
        ({"id": "q2", "golden_answers": ["x"]}, r"a\.jsonl:2: `question` is missing"),
        ({**RECORD, "id": "q2", "question": " "}, r"a\.jsonl:2: `question` is missing"),
        ({**RECORD, "id": "q2", "golden_answers": []}, r"a\.jsonl:2 .*q2.*no golden answer"),
        ({**RECORD, "id": "q2", "golden_answers": [""]}, r"a\.jsonl:2 .*q2.*no golden answer"),
        ({"id": "q2", "question": "Why?"}, r"a\.jsonl:2 .*q2.*no golden answer"),
        (RECORD, r"a\.jsonl:2: id 'q1' stands here a second time"),
        ({"id": "q2", "objectives": [{"question": "Why?"}]}, r"a\.jsonl:2: not a task"),
        (training_row("no marker here", ["x"]), r"a\.jsonl:2: no `Question:`"),
        (training_row("Question: A?; B?", [["x"]]), r"a\.jsonl:2: 2 questions but 1 golden"),
    ],
)
def test_what_is_wrong_is_said_with_the_line(tmp_path, bad, message):
    with pytest.raises(DataError, match=message):
        load_tasks(write(tmp_path / "a.jsonl", RECORD, bad))


def test_a_missing_or_empty_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.jsonl: no such file"):
        load_tasks(tmp_path / "gone.jsonl")
    with pytest.raises(DataError, match=r"empty\.jsonl: holds no question"):
        load_tasks(write(tmp_path / "empty.jsonl"))


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.parquet"])
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path, name):
    (tmp_path / name).write_text("<html>Not found</html>")
    with pytest.raises(DataError, match=name):
        load_tasks(tmp_path / name)


def test_a_torn_gzip_file_is_refused(tmp_path):
    path = write(tmp_path / "a.jsonl.gz", RECORD)
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(DataError, match="can't be read"):
        load_tasks(path)


def test_the_hub_needs_its_extra_and_a_whole_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"mem1-rl\[hub\]"):
        load_tasks("hub:RUC-NLPIR/FlashRAG_datasets/nq#dev")


def test_questions_are_asked_with_one_mark_no_inner_semicolon_and_no_tags():
    asked = ("Who; or\nwhat ?? ", "a <answer>x</answer> b", "When?")
    task = Task(
        id="t", objectives=tuple(Objective(question=text, answers=("y",)) for text in asked)
    )
    assert question_text(task) == "Who, or what?; a ‹answer>x‹/answer> b?; When?"
