"""What is told of one trajectory: parts, savings, what changed, what was evicted."""

import pytest
from worlds import answer, play, scripted, search

from mem1.context import Full, InternalState, Window
from mem1.evals.metrics import measure
from mem1.rollout.store import dump_trajectory, load_trajectory
from mem1.viewer.records import Record
from mem1.viewer.trajectory_view import tokens_view, trajectory_view, word_diff

SAID = (search("one two", "a"), search("one three four", "b"), "so " + answer("four"))


def record(*replies, context=None, **settings) -> Record:
    played = play(scripted(*(replies or SAID)), context=context or InternalState())
    stored = load_trajectory(dump_trajectory(played))
    return Record(number=7, step=None, advantages=None, trajectory=stored)


def view(*replies, **settings):
    return trajectory_view(record(*replies, **settings))


@pytest.mark.parametrize("policy", [InternalState(), Full(), Window(k=1)])
def test_segments_give_back_what_each_turn_saw(policy):
    found = record(context=policy)
    shown = trajectory_view(found)
    for turn, one in zip(shown["turns"], found.trajectory.turns, strict=True):
        parts = [shown["segments"][index] for index in turn["context"]]
        assert [part["text"] for part in parts] == [segment.text for segment in one.context]
        assert sum(part["tokens"] for part in parts) == turn["context_tokens"]
    assert len({id(s) for t in found.trajectory.turns for s in t.context}) == len(shown["segments"])


def test_full_context_is_counted_as_it_would_have_been():
    of_state, of_full = view()["turns"], view(context=Full())["turns"]
    assert [turn["full_tokens"] for turn in of_full] == [t["context_tokens"] for t in of_full]
    assert [turn["full_tokens"] for turn in of_state] == [t["full_tokens"] for t in of_full]


def test_savings_are_the_metrics_of_both():
    found, full = record(), record(context=Full())
    ours, theirs = measure(found.trajectory), measure(full.trajectory)
    assert trajectory_view(found)["savings"] == {
        "peak_tokens": ours["peak_tokens"],
        "full_peak_tokens": theirs["peak_tokens"],
        "dependency": ours["dependency"],
        "full_dependency": theirs["dependency"],
    }


def test_the_internal_state_is_compared_word_by_word():
    assert [turn["state_diff"] for turn in view()["turns"]] == [
        [["+", "one two"]],
        [["=", "one"], ["-", "two"], ["+", "three four"]],
        [["-", "one three"], ["=", "four"]],
    ]


def test_a_difference_gives_back_both_texts():
    old, new = "a b c d e f", "b c x d f g"
    found = word_diff(old, new)
    assert " ".join(words for sign, words in found if sign != "-") == new
    assert " ".join(words for sign, words in found if sign != "+") == old


def test_what_the_next_turn_lacks_is_evicted():
    shown = view()
    kinds = [[shown["segments"][i]["kind"] for i in turn["evicted"]] for turn in shown["turns"]]
    turn_2 = ["internal_state", "action", "observation", "hint"]
    assert kinds == [[], turn_2, []]
    assert [turn["evicted"] for turn in view(context=Full())["turns"]] == [[], [], []]


def test_a_reply_is_cut_into_its_parts_and_stays_whole():
    parts = view()["turns"][-1]["reply"]
    assert parts == [
        ["reply", "so "],
        ["internal_state", "<think>four</think>"],
        ["reply", "\n"],
        ["action", "<answer>Paris</answer>"],
    ]


def test_a_reply_that_is_none_is_shown_as_it_is():
    assert view("nothing of use", answer("x"))["turns"][0]["reply"] == [["reply", "nothing of use"]]


def test_facts_tell_when_they_were_told_and_held():
    shown = view(search("nothing", "Paris"), search("it is Paris", "b"), answer("Paris"))
    (fact,) = shown["facts"]
    assert (fact["values"], fact["told"], fact["used"]) == (["paris"], [1], True)
    assert fact["marks"] == ["unseen", "held", "held"]


def test_objectives_stand_beside_what_was_given():
    (objective,) = view(answer("x", "the paris"))["objectives"]
    assert (objective["given"], objective["em"], objective["f1"]) == ("the paris", 1, 1.0)
    (missing,) = view(*[search("x")] * 6)["objectives"]
    assert (missing["given"], missing["em"]) == (None, 0)


def test_tokens_are_those_of_the_turn():
    found = record()
    turn = found.trajectory.turns[1]
    shown = tokens_view(found, 2, decode=lambda ids: "".join(map(chr, ids)))
    prompt, *others = ["".join(pieces) for pieces in shown["context"]]
    assert prompt == f"user: {turn.context[0].text}\nassistant: "
    assert others == [segment.text for segment in turn.context[1:]]
    assert "".join(shown["reply"]["pieces"]) == turn.completion.text
    assert shown["reply"]["logprobs"] == turn.completion.logprobs
    assert (shown["decoded"], shown["reply"]["trained"][0]) == (True, True)


def test_without_a_tokenizer_tokens_are_ids():
    found = record()
    shown = tokens_view(found, 1, decode=None)
    ids = [int(piece) for piece in shown["reply"]["pieces"]]
    assert tuple(ids) == found.trajectory.turns[0].completion.token_ids
    assert shown["decoded"] is False
