"""Demonstrations in text: played through the real loop, or refused with the line or the reply."""

import asyncio
import json
from pathlib import Path

import pytest

from mem1.chat import ByteRenderer
from mem1.context import Budget, Full, InternalState
from mem1.errors import DataError
from mem1.train.transcripts import played, read_transcripts
from mem1.types import SegmentKind

BUDGET = Budget(prompt=100, internal_state=60, action=40, observation=200)
REPLIES = (
    "<think> kami unknown</think><search> kami</search>",
    "<think> kami 142</think><answer> 142</answer>",
)
TALK = ["Find kami\n", REPLIES[0], "found kami 142", REPLIES[1]]


def messages(contents) -> list[dict[str, object]]:
    return [
        {"role": "assistant" if place % 2 else "user", "content": content}
        for place, content in enumerate(contents)
    ]


def written(folder: Path, *records: object) -> Path:
    path = folder / "shown.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def play(path: Path, *, context=None, budget=BUDGET):
    renderer = ByteRenderer()
    transcripts = read_transcripts(path)
    return asyncio.run(
        played(transcripts, renderer=renderer, context=context or InternalState(), budget=budget)
    )


def test_a_transcript_becomes_the_episode_it_tells(tmp_path):
    (episode,) = play(written(tmp_path, {"messages": messages(TALK), "id": "a", "reward": 0.5}))
    assert [turn.completion.text for turn in episode.turns] == list(REPLIES)
    assert (episode.task.id, episode.reward, episode.num_turns) == ("a", 0.5, 2)
    assert [turn.faults for turn in episode.turns] == [(), ()]
    assert all(turn.completion.exact for turn in episode.turns)
    assert {turn.completion.logprobs for turn in episode.turns} == {None}


@pytest.mark.parametrize(
    ("context", "kinds"),
    [
        (InternalState(), ["prompt", "internal_state", "action", "observation", "hint"]),
        (Full(), ["prompt", "reply", "observation", "hint"]),
    ],
)
def test_the_context_policy_of_the_run_decides_what_each_turn_sees(tmp_path, context, kinds):
    (episode,) = play(written(tmp_path, {"messages": messages(TALK)}), context=context)
    assert [segment.kind for segment in episode.turns[1].context] == kinds
    (seen,) = [s for s in episode.turns[1].context if s.kind is SegmentKind.OBSERVATION]
    assert "found kami 142" in seen.text


def test_without_id_and_reward_it_is_named_by_its_line_and_earns_one(tmp_path):
    record = {"messages": messages(TALK)}
    found = play(written(tmp_path, record, record))
    assert [(t.task.id, t.reward) for t in found] == [("shown-1", 1.0), ("shown-2", 1.0)]


ROLES = "roles are .*: user and assistant in turn, assistant last"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"messages": messages(TALK)[:3]}, ROLES),
        ({"messages": messages(TALK)[1:]}, ROLES),
        ({"messages": []}, ROLES),
        ({"messages": [{"role": "system", "content": "s"}, *messages(TALK)]}, ROLES),
        ({"messages": messages(["q", None])}, "a content is no text"),
        ({"messages": messages(["q", [{"type": "text", "text": "a"}]])}, "a content is no text"),
        ({"messages": [{"role": "user"}, {"role": "assistant"}]}, "'content'"),
        ({"turns": []}, "'messages'"),
        ([], "list indices"),
        ({"messages": messages(TALK), "reward": "much"}, "could not convert"),
    ],
)
def test_a_line_that_is_no_transcript_is_named(tmp_path, record, message):
    path = written(tmp_path, {"messages": messages(TALK)}, record)
    with pytest.raises(DataError, match=f"shown.jsonl:2: not a transcript: .*{message}"):
        read_transcripts(path)


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none.jsonl: no such file"):
        read_transcripts(tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    ("changed", "budget", "number"),
    [
        # Text behind the action is never sampled.
        ({1: REPLIES[0] + " and more"}, BUDGET, 1),
        # What comes behind a first action belongs to another turn.
        ({3: "<search> x</search>" + REPLIES[1]}, BUDGET, 2),
        ({3: "<think> " + "long " * 30 + "</think><answer> 142</answer>"}, BUDGET, 2),
        ({0: "long " * 30}, BUDGET, 1),
    ],
    ids=["text behind", "two actions", "too long a reply", "too long a prompt"],
)
def test_a_reply_that_cannot_be_played_whole_is_named(tmp_path, changed, budget, number):
    contents = [changed.get(place, content) for place, content in enumerate(TALK)]
    path = written(tmp_path, {"messages": messages(contents), "id": "a"})
    with pytest.raises(DataError, match=f"transcript a: reply {number} can't be played as it is"):
        play(path, budget=budget)


def test_two_of_one_id_are_refused(tmp_path):
    record = {"messages": messages(TALK), "id": "a"}
    with pytest.raises(ValueError, match="give tasks unique ids"):
        play(written(tmp_path, record, record))
