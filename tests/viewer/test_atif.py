"""ATIF documents: valid by other people's models, and nothing the model didn't see or say."""

from dataclasses import replace

import orjson
import pytest
from worlds import answer, play, scripted, search

from mem1.context import Full, InternalState
from mem1.errors import EngineError
from mem1.types import context_ids
from mem1.viewer.atif import Origin, atif_document
from mem1.viewer.records import Record

ORIGIN = Origin(run="demo", version="0.1.0", model="some/model")


def played(*replies, context=None):
    return play(scripted(*replies), context=context or InternalState())


THREE = played(search("one", "a"), search("two", "b"), "so " + answer("three"))


def document(trajectory, *, advantages=None, step=None):
    record = Record(number=7, trajectory=trajectory, step=step, advantages=advantages)
    return orjson.loads(orjson.dumps(atif_document(record, origin=ORIGIN)))


def agent_steps(found):
    return [step for step in found["steps"] if step["source"] == "agent"]


EPISODES = {
    "internal_state": THREE,
    "full": played(search("one"), answer("two"), context=Full()),
    "no action": played("nothing of use", answer("two")),
    "failed": played(search("one"), EngineError("server down")),
    "failed at once": played(EngineError("server down")),
}


@pytest.mark.parametrize("name", EPISODES)
def test_the_models_of_the_atif_package_accept_it(name):
    atif = pytest.importorskip("atif")
    found = document(EPISODES[name])
    assert atif.Trajectory.model_validate(found).to_json_dict() == found


def test_the_same_of_a_training_run():
    atif = pytest.importorskip("atif")
    advantages = tuple((0.5,) * turn.completion.num_tokens for turn in THREE.turns)
    found = document(THREE, advantages=advantages, step=3)
    atif.Trajectory.model_validate(found)
    assert agent_steps(found)[0]["metrics"]["extra"]["advantages"] == list(advantages[0])
    assert found["extra"]["training_step"] == 3


def test_ids_and_logprobs_are_those_of_the_turn():
    for step, turn in zip(agent_steps(document(THREE)), THREE.turns, strict=True):
        metrics = step["metrics"]
        assert metrics["prompt_token_ids"] == list(context_ids(turn.context))
        assert metrics["completion_token_ids"] == list(turn.completion.token_ids)
        assert metrics["logprobs"] == list(turn.completion.logprobs)
        assert metrics["prompt_tokens"] == len(metrics["prompt_token_ids"])
        assert metrics["completion_tokens"] == len(metrics["completion_token_ids"])


def test_ids_that_were_made_from_text_are_left_out():
    turn = THREE.turns[0]
    inexact = replace(turn, completion=replace(turn.completion, exact=False))
    (step,) = agent_steps(document(replace(THREE, turns=(inexact,))))
    assert {"prompt_token_ids", "completion_token_ids", "logprobs"}.isdisjoint(step["metrics"])
    assert step["metrics"]["extra"]["exact"] is False


def test_a_reply_is_taken_apart_and_kept_whole():
    first, _, last = agent_steps(document(THREE))
    assert first["reasoning_content"] == "one"
    assert first["message"] == ""
    assert first["tool_calls"] == [
        {"tool_call_id": "turn-1", "function_name": "search", "arguments": {"argument": "a"}}
    ]
    assert first["observation"]["results"] == [
        {"source_call_id": "turn-1", "content": THREE.turns[0].observation}
    ]
    assert (last["reasoning_content"], last["message"]) == ("three", "so\nParis")
    assert last["extra"]["reply"] == "so " + answer("three")
    assert "tool_calls" not in last


def test_an_observation_without_an_action_answers_no_call():
    first, _ = agent_steps(document(EPISODES["no action"]))
    assert "tool_calls" not in first
    assert [set(result) for result in first["observation"]["results"]] == [{"content"}]


def test_a_rewritten_context_is_announced_with_all_of_it():
    found = document(THREE)["steps"]
    assert [step["source"] for step in found] == ["user", "agent", "agent", "system", "agent"]
    marked = found[3]["extra"]["context_management"]
    assert (marked["type"], marked["boundary"]) == ("compaction", "replace")
    text = "".join(segment.text for segment in THREE.turns[2].context)
    assert found[3]["observation"]["results"] == [{"content": text}]
    assert marked["tokens_after"] == len(context_ids(THREE.turns[2].context))


def test_a_context_that_only_grows_is_not_announced():
    found = document(played(search("one"), search("two"), answer("three"), context=Full()))
    assert {step["source"] for step in found["steps"]} == {"user", "agent"}


def test_the_totals_are_sums_over_the_steps():
    found = document(THREE)
    metrics = [step["metrics"] for step in agent_steps(found)]
    totals = found["final_metrics"]
    assert totals["total_prompt_tokens"] == sum(m["prompt_tokens"] for m in metrics)
    assert totals["total_completion_tokens"] == sum(m["completion_tokens"] for m in metrics)
    assert totals["total_steps"] == len(found["steps"]) == 5
    assert totals["extra"]["em"] == 1.0


def test_an_episode_that_failed_at_once_still_says_what_was_asked():
    found = document(EPISODES["failed at once"])
    assert found["steps"] == [{"step_id": 1, "source": "user", "message": "Capital of France?"}]
    assert found["extra"]["stop_reason"] == "engine_error"
