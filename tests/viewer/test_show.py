"""What the terminal shows of a trajectory; text that is not ours is printed, never obeyed."""

import io
from typing import Any

import pytest
from rich.console import Console

from mem1.errors import DataError
from mem1.viewer.show import choose, harmless, show_list, show_trajectory

COLUMNS = [
    *("trajectory", "task_id", "sample", "context_policy", "num_objectives", "question"),
    *("answer", "reward", "hits", "num_turns", "peak_tokens", "bound", "stop_reason", "text"),
]


def row(number, task, *, sample=0, context="full", hits=1) -> list[Any]:
    outcome = ["what?", "that", 1.0, hits, 2, 1234.0, None, "answered", "what?"]
    return [number, task, sample, context, 2, *outcome]


def listing(*rows) -> dict[str, Any]:
    return {"columns": COLUMNS, "rows": list(rows), "next": 9, "damaged": []}


def segment(kind, turn, text, tokens) -> dict[str, Any]:
    return {"kind": kind, "turn": turn, "text": text, "tokens": tokens, "sampled": False}


def turn(number, **changes) -> dict[str, Any]:
    return {
        "turn": number,
        "context": [0],
        "context_tokens": 160,
        "reply_tokens": 24,
        "full_tokens": 1500,
        "reply": [["internal_state", "<think>kami</think>"], ["action", "<look>lone</look>"]],
        "action": {"name": "look", "argument": "lone"},
        "state_diff": [["+", "kami 142 lone 117"]],
        "observation": "found lone 119",
        "evicted": [],
        "faults": [],
        "engine_s": 0.1,
        "env_s": 0.0,
    } | changes


CHANGED = [["=", "kami 142 lone"], ["-", "117"], ["+", "119"]]
VIEW: dict[str, Any] = {
    "task_id": "t7",
    "sample": 3,
    "context_policy": "internal_state",
    "stop_reason": "answered",
    "reward": 1.0,
    "bound": 224,
    "error": None,
    "objectives": [
        {"question": "kami?", "answers": ["142", "one"], "given": "142", "em": 1, "f1": 1.0},
        {"question": "lone?", "answers": ["119"], "given": None, "em": 0, "f1": 0.0},
    ],
    "segments": [
        segment("prompt", 0, "kami and lone?", 96),
        segment("internal_state", 1, "<think>kami</think>", 12),
    ],
    "turns": [
        turn(1),
        turn(2, context=[0, 1], evicted=[1], state_diff=CHANGED, faults=["two_actions"]),
    ],
    "facts": [
        {
            "key": "lone",
            "values": ["119"],
            "objective": 1,
            "page": "lone",
            "used": False,
            "marks": ["unseen", "held"],
            "told": [1],
        }
    ],
    "figures": {"survival": 0.5, "half_life": None},
    "savings": {
        "peak_tokens": 184,
        "full_peak_tokens": 1524,
        "dependency": 9000,
        "full_dependency": 72000,
    },
}


def drawn(show, what, *, colour=False, **how) -> str:
    system = "truecolor" if colour else None
    screen = Console(file=io.StringIO(), width=100, force_terminal=colour, color_system=system)
    show(screen, what, **how)
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def page(view, **how) -> list[str]:
    return [line.strip() for line in drawn(show_trajectory, view, **how).splitlines()]


def table(found, *, folder="runs/demo") -> list[str]:
    shown = drawn(show_list, found, folder=folder)
    return [" ".join(line.split()) for line in shown.splitlines()]


def test_the_head_tells_the_outcome_and_what_was_saved():
    shown = " ".join(page(VIEW))
    assert "t7 · sample 3 · internal_state" in shown
    assert "answered · reward 1.00 · 2 turns · peak 184 tokens, bound 224" in shown
    assert "with full context 1,524 · dependency 9,000, with full context 72,000" in shown


def test_a_turn_tells_its_tokens_parts_and_what_was_evicted():
    shown = page(VIEW)
    second = shown[next(n for n, line in enumerate(shown) if line.startswith("turn 2")) :]
    assert "160 in + 24 out = 184 tokens, bound 224; full context 1,500 in" in second[0]
    assert second[1:11] == [
        *("context  prompt 96 · state of turn 1 12", "state", "kami 142 lone [-117-] {+119+}"),
        *("look", "lone", "faults  two_actions", "seen", "found lone 119"),
        *("evicted  state of turn 1 12", "facts  ● lone"),
    ]


def test_a_first_state_is_shown_without_marks():
    assert "kami 142 lone 117" in page(VIEW)


def test_the_outcome_is_set_against_the_gold_answers():
    shown = page(VIEW)
    start = shown.index("✓ kami?")
    assert shown[start : start + 6] == [
        *("✓ kami?", "given  142", "gold   142 | one   F1 1.00"),
        *("✗ lone?", "given  (nothing)", "gold   119   F1 0.00"),
    ]


def test_facts_are_rows_and_turns_are_signs():
    shown = page(VIEW)
    assert "·●  lone = 119  not used" in shown
    assert "survival 0.50" in shown


def test_one_turn_shows_all_that_the_model_saw_and_said():
    shown = page(VIEW, turn=2)
    assert not any(line.startswith("turn 1") for line in shown)
    for text in ("kami and lone?", "<think>kami</think>", "<think>kami</think><look>lone</look>"):
        assert text in shown


def test_long_texts_are_cut_unless_one_turn_is_asked_for():
    view = VIEW | {"turns": [turn(1, observation="x" * 5000)]}
    assert 1100 < drawn(show_trajectory, view).count("x") < 1300
    assert drawn(show_trajectory, view, turn=1).count("x") >= 5000


@pytest.mark.parametrize("number", [0, 3, -1])
def test_a_turn_that_is_not_there_is_refused(number):
    with pytest.raises(DataError, match=f"--turn {number}: the trajectory has turns 1 to 2"):
        page(VIEW, turn=number)


def test_the_list_tells_outcomes_and_how_to_ask():
    found = table(listing(row(0, "t1"), row(1, "t2", hits=2)))
    assert "t1 0 full 1 / 2 1.00 2 1,234 / none answered" in found
    assert "t2 0 full 2 / 2 1.00 2 1,234 / none answered" in found
    assert any("mem1 show runs/demo --task ID" in line for line in found)


def test_the_list_tells_what_is_damaged():
    found = listing(row(0, "t1")) | {
        "damaged": [{"where": "trajectories.jsonl:17", "why": "no JSON"}]
    }
    assert "trajectories.jsonl:17: no JSON" in table(found)


def test_a_long_id_stays_on_its_line():
    found = table(listing(row(0, "t" * 200)))
    assert f"{'t' * 200} 0 full 1 / 2 1.00 2 1,234 / none answered" in found


def test_the_last_record_of_a_kind_is_meant_and_others_are_told():
    found = listing(
        row(0, "t1"), row(1, "t1", sample=1), row(2, "t2"), row(3, "t1"), row(4, "t1", context="x")
    )
    chosen, others = choose(found, task="t1")
    assert chosen["trajectory"] == 3
    assert [other["trajectory"] for other in others] == [1, 4]
    assert choose(found, task="t1", sample=1)[0]["trajectory"] == 1
    assert choose(found, task="t1", context="x") == (choose(found, task="t1")[1][1], [])


def test_an_unknown_task_names_those_like_it():
    with pytest.raises(DataError, match="no task 'lookup-n3' in this run: it has lookup-n2, "):
        choose(listing(row(0, "other"), row(1, "lookup-n2")), task="lookup-n3")


def test_an_unknown_sample_names_what_there_is():
    with pytest.raises(DataError, match="it has --sample 0 --context 'full'"):
        choose(listing(row(0, "t1")), task="t1", sample=5)


def test_what_a_mistake_is_told_with_is_harmless_too():
    found = listing(row(0, "t\x1b[2J", context="\x9bx"))
    with pytest.raises(DataError, match=r"it has t�\[2J, "):
        choose(found, task="u")
    with pytest.raises(DataError, match=r"it has --sample 0 --context '�x'"):
        choose(found, task="t\x1b[2J", sample=1)


HOSTILE = (
    "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x1b]8;;http://e.x\x1b\\link \x9b2J \x90q \x08\x7f \r "
    "\u202eturned \u200bnothing \ud800 \ue000 [red]markup[/red] [link=http://e.x]y[/link] [/]"
)
KEPT = {"kind", "marks", "columns"}
"""Fields whose values are our own words."""


def hostile(value: Any, poison: str) -> Any:
    """The same answer with every text of it replaced."""
    if isinstance(value, dict):
        return {k: v if k in KEPT else hostile(v, poison) for k, v in value.items()}
    if isinstance(value, list):
        return [hostile(part, poison) for part in value]
    return poison if isinstance(value, str) and value not in "=+-" else value


@pytest.mark.parametrize("number", [None, 2])
@pytest.mark.parametrize("colour", [False, True])
def test_text_of_others_moves_no_cursor_and_sets_no_colour(number, colour):
    told = VIEW | {"error": "server down"}
    shown, safe = (
        drawn(show_trajectory, hostile(told, poison), turn=number, colour=colour)
        for poison in (HOSTILE, harmless(HOSTILE))
    )
    assert shown == safe
    assert colour or not any(ord(c) < 32 and c != "\n" for c in shown)
    assert "[red]markup[/red]" in " ".join(shown.split())


def test_nor_does_it_in_the_list():
    found = listing(row(0, "t1")) | {
        "damaged": [{"where": "trajectories.jsonl:17", "why": "no JSON"}]
    }
    shown = drawn(show_list, hostile(found, HOSTILE), folder=HOSTILE)
    assert not any(ord(c) < 32 and c != "\n" for c in shown)
    assert "�[31mred�[0m" in shown


def test_harmless_text_shows_that_something_was_there():
    assert harmless("a\x1b[1mb\r\nc\td\x9b\u202ee🙂é\u2009") == "a�[1mb\nc\td��e🙂é\u2009"
    assert not {c for c in harmless(HOSTILE) if ord(c) < 32 or 0x7F <= ord(c) < 0xA0}
