"""The rows of a parquet file hold what the turns hold, and it's written group by group."""

from pathlib import Path

import pyarrow.parquet as pq
from worlds import answer, play, scripted, search

from mem1.types import context_ids
from mem1.viewer import parquet
from mem1.viewer.parquet import COLUMNS, write_turns
from mem1.viewer.records import Record

TRAJECTORY = play(scripted(search("one"), search("two"), answer("three")))


def record(number=0, *, step=None, advantages=None):
    return Record(number=number, trajectory=TRAJECTORY, step=step, advantages=advantages)


def rows(path, *records):
    assert write_turns(path, records, run="demo") == 3 * len(records)
    return pq.read_table(path).to_pylist()


def test_a_row_holds_what_its_turn_holds(tmp_path):
    found = rows(tmp_path / "turns.parquet", record())
    for number, (row, turn) in enumerate(zip(found, TRAJECTORY.turns, strict=True), start=1):
        assert (row["run"], row["trajectory"], row["turn"], row["num_turns"]) == (
            ("demo", 0, number, 3)
        )
        assert row["context_token_ids"] == list(context_ids(turn.context))
        assert row["context_text"] == "".join(segment.text for segment in turn.context)
        assert row["reply_token_ids"] == list(turn.completion.token_ids)
        assert row["logprobs"] == list(turn.completion.logprobs)
        assert (row["reply_text"], row["observation"]) == (turn.completion.text, turn.observation)
        assert (row["action"], row["argument"]) == (turn.action.name, turn.action.argument)
        assert [part["num_tokens"] for part in row["context_parts"]] == [
            len(segment.token_ids) for segment in turn.context
        ]
        assert (row["reward"], row["stop_reason"]) == (1.0, "answered")
        assert (row["questions"], row["answers"]) == (["Capital of France?"], [["Paris"]])


def test_step_and_advantages_are_those_of_training(tmp_path):
    advantages = tuple((0.25,) * turn.completion.num_tokens for turn in TRAJECTORY.turns)
    trained, plain = record(step=7, advantages=advantages), record(1)
    found = rows(tmp_path / "turns.parquet", trained, plain)
    assert [row["step"] for row in found] == [7] * 3 + [None] * 3
    assert [row["advantages"] for row in found] == [*map(list, advantages), None, None, None]


def test_a_row_group_ends_where_it_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "GROUP_ROWS", 4)
    path = tmp_path / "turns.parquet"
    assert [row["trajectory"] for row in rows(path, *map(record, range(3)))] == [
        *(0, 0, 0, 1, 1, 1, 2, 2, 2)
    ]
    meta = pq.ParquetFile(path).metadata
    assert [meta.row_group(n).num_rows for n in range(meta.num_row_groups)] == [4, 4, 1]


def test_many_tokens_fill_a_row_group_too(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "GROUP_TOKENS", 1)
    path = tmp_path / "turns.parquet"
    rows(path, record())
    assert pq.ParquetFile(path).metadata.num_row_groups == 3


def test_the_file_says_what_its_columns_hold(tmp_path):
    path = tmp_path / "turns.parquet"
    rows(path, record())
    layout = pq.read_schema(path)
    assert {f.name: f.metadata[b"holds"].decode() for f in layout} == {
        column.name: column.holds for column in COLUMNS
    }


def test_the_docs_name_every_column():
    page = (Path(__file__).parents[2] / "docs/viewer.md").read_text("utf-8")
    assert [column.name for column in COLUMNS if f"`{column.name}`" not in page] == []
