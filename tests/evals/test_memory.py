"""What became of facts: the episodes are written out, a line for each turn."""

import math
from dataclasses import replace

import pytest
from remembered import LOOKUP, UPDATE, episode, ledger, question

from mem1.context import Full, LastObservation, Window
from mem1.evals import aggregate, measure
from mem1.evals.memory import MEMORY_METRICS, half_life, internal_states, survival_by_age, trace
from mem1.evals.metrics import survival_curve
from mem1.types import Fault, SegmentKind, Trajectory

PERFECT = episode(
    LOOKUP,
    ("", "kami"),
    ("kami 100", "lone"),
    ("kami 100 lone 101", "=100; 101"),
)


def marks(trajectory: Trajectory) -> list[str]:
    """A line for each fact: its marks by their first three letters, turn after turn."""
    return [" ".join(mark[:3] for mark in row) for row in trace(trajectory).marks]


def figures(trajectory: Trajectory) -> dict[str, float]:
    return {n: value for n, value in measure(trajectory).items() if n in MEMORY_METRICS}


def test_a_perfect_memory_holds_each_fact_from_the_turn_after_it_is_told():
    assert marks(PERFECT) == ["uns hel hel", "uns uns hel"]
    assert trace(PERFECT).used == (True, True)
    assert figures(PERFECT) == {
        "survival": 1.0,
        "held": 1.0,
        "corruption": 0.0,
        "invention": 0.0,
        "redundancy": 0.0,
        "bits_needed": 14.0,
        "bits_held": 14.0,
    }


def test_a_fact_is_lost_and_found_again():
    found = episode(
        LOOKUP,
        ("", "kami"),
        ("kami 100", "lone"),
        ("lone 101", "kami"),
        ("kami 100 lone 101", "=100; 101"),
    )
    assert marks(found) == ["uns hel los hel", "uns uns hel hel"]
    assert figures(found) == {
        "survival": 0.5,  # of kami at turn 2 and lone at turn 3, one is held a turn later
        "held": 4 / 5,
        "corruption": 0.0,
        "invention": 0.0,
        "redundancy": 1 / 3,  # kami again
        "bits_needed": 14.0,
        "bits_held": 14.0,
    }


def test_a_fact_that_was_never_written_down_is_missed():
    assert marks(episode(LOOKUP, ("", "kami"), ("unknown", "lone"), ("lone 101", "=x"))) == [
        "uns mis mis",
        "uns uns hel",
    ]


def test_a_wrong_value_in_place_of_a_seen_one_is_corrupted():
    wrong = episode(LOOKUP, ("", "kami"), ("kami 100", "lone"), ("kami 199 lone 101", "=199; 101"))
    assert marks(wrong) == ["uns hel cor", "uns uns hel"]
    assert (figures(wrong)["corruption"], figures(wrong)["survival"]) == (1 / 3, 0.0)
    assert trace(wrong).used == (False, True)


def test_a_wrong_value_is_not_also_an_invention_of_the_newer_one():
    wrong = episode(UPDATE, ("", "kami"), ("kami 199", "=199; 101"))
    assert marks(wrong) == ["uns cor", "uns uns", "uns uns"]


def test_a_value_of_another_name_is_a_wrong_one():
    swapped = episode(LOOKUP, ("", "kami"), ("kami 100", "lone"), ("kami 101 lone 100", "=x"))
    assert marks(swapped) == ["uns hel cor", "uns uns cor"]


@pytest.mark.parametrize("value", ["101", "199"])
def test_a_value_of_what_was_never_seen_is_invented_be_it_right_or_wrong(value):
    invented = episode(LOOKUP, ("", "kami"), (f"kami 100 lone {value}", "=100; 101"))
    assert marks(invented) == ["uns hel", "uns inv"]
    assert figures(invented)["invention"] == 1 / 3


def test_a_stale_value_is_not_held():
    kept = episode(UPDATE, ("", "kami"), ("kami 100", "lone"), ("kami 100 lone 101", "=100; 101"))
    assert marks(kept) == ["uns hel sta", "uns uns mis", "uns uns hel"]
    assert figures(kept)["held"] == 2 / 3
    assert "survival" not in figures(kept)  # what was held at turn 2 is superseded at turn 3
    assert trace(kept).used == (True, False, True)


def test_an_override_that_is_taken_over_supersedes_the_old_value():
    taken = episode(UPDATE, ("", "kami"), ("kami 100", "lone"), ("kami 107 lone 101", "=107; 101"))
    assert marks(taken) == ["uns hel sup", "uns uns hel", "uns uns hel"]


def test_an_override_read_first_counts_and_the_old_page_adds_nothing():
    late = episode(
        UPDATE, ("", "lone"), ("kami 107 lone 101", "kami"), ("kami 107 lone 101", "=107; 101")
    )
    assert marks(late) == ["uns sup sup", "uns hel hel", "uns hel hel"]
    assert trace(late).redundant == (False, True, None)


def test_of_a_pair_the_larger_value_is_needed():
    pair = ledger(
        "most kami lone",
        pages={"kami": "found kami 100", "lone": "found lone 107"},
        memory=[{}, {"kami": "100"}, {"kami": "107"}],
    )
    read = [("", "kami"), ("kami 100", "lone")]
    assert marks(episode(pair, *read, ("kami 107", "=107"))) == ["uns hel sup", "uns uns hel"]
    assert marks(episode(pair, *read, ("kami 100", "=100"))) == ["uns hel sta", "uns uns mis"]


SUM = ledger(
    "sum kami lone",
    pages={"kami": "found kami 142", "lone": "found lone 117"},
    memory=[{}, {"kami": "142"}, {"kami": "131"}],
)


@pytest.mark.parametrize(
    ("last", "of_kami", "of_sum"),
    [("131", "sup", "hel"), ("142", "sta", "mis"), ("117", "sup", "cor"), ("199", "sup", "cor")],
)
def test_once_both_pages_are_seen_the_sum_is_needed(last, of_kami, of_sum):
    found = episode(SUM, ("", "kami"), ("kami 142", "lone"), (f"kami {last}", f"={last}"))
    assert marks(found) == [f"uns hel {of_kami}", "uns uns sup", f"uns uns {of_sum}"]
    assert trace(found).redundant == (False, False, None)
    assert figures(found)["bits_needed"] == 7.0


def test_a_second_value_that_is_read_first_is_needed_until_the_sum_is():
    found = episode(SUM, ("", "lone"), ("lone 117", "kami"), ("kami 131", "=131"))
    assert marks(found) == ["uns uns sup", "uns hel sup", "uns uns hel"]
    assert trace(found).redundant == (False, False, None)
    assert (figures(found)["held"], figures(found)["bits_needed"]) == (1.0, 7.0)


def test_who_saw_the_second_page_alone_invents_the_sum():
    assert marks(episode(SUM, ("", "lone"), ("kami 131", "=131"))) == [
        "uns uns",
        "uns mis",
        "uns inv",
    ]
    wrong = episode(SUM, ("", "lone"), ("lone 117 kami 117", "=117"))
    assert marks(wrong) == ["uns inv", "uns hel", "uns inv"]


def test_a_second_value_is_invented_though_the_first_is_known():
    found = episode(SUM, ("", "kami"), ("kami 142 lone 155", "=x"))
    assert marks(found) == ["uns hel", "uns inv", "uns uns"]


def test_asking_for_what_the_state_holds_or_asking_twice_is_redundant():
    asked = episode(
        LOOKUP, ("", "nobody"), ("", "kami"), ("kami 100", "kami"), ("", "Nobody "), ("x", "")
    )
    assert trace(asked).redundant == (False, False, True, True, None)
    held = episode(LOOKUP, ("", "kami"), ("kami 100", "lone"), ("lone 101", "=x"))
    assert trace(held).redundant == (False, False, None)


def test_a_reply_without_state_carries_the_old_one():
    kept = episode(LOOKUP, ("", "kami"), ("kami 100", "lone"), ("", "lone"), ("", "=100; x"))
    old = "<think>kami 100</think>"
    assert internal_states(kept.turns) == ["", old, old, old]
    assert marks(kept) == ["uns hel hel hel", "uns uns mis mis"]


@pytest.mark.parametrize("context", [Full(), Window(k=1)])
def test_where_whole_replies_are_kept_the_state_is_what_each_thinks(context):
    turns = ("", "kami"), ("kami 100", "lone"), ("", "lone"), ("lone 101", "=x")
    thought = episode(LOOKUP, *turns, context=context)
    states = ["", "<think>kami 100</think>", "", "<think>lone 101</think>"]
    assert internal_states(thought.turns) == states
    assert marks(thought) == ["uns hel los los", "uns uns mis hel"]


def test_where_thoughts_are_dropped_nothing_is_held_not_even_at_the_last_turn():
    turns = ("", "kami"), ("kami 100", "lone"), ("lone 101", "=x; 101")
    dropped = episode(LOOKUP, *turns, context=LastObservation())
    assert internal_states(dropped.turns) == ["", "", ""]
    assert marks(dropped) == ["uns mis mis", "uns uns mis"]


def test_an_oversize_state_is_not_a_dropped_one():
    first, *rest = episode(LOOKUP, ("x", "kami"), ("kami 100", "=x")).turns
    kept = [s for s in rest[0].context if s.kind is not SegmentKind.INTERNAL_STATE]
    oversize = replace(first, faults=(Fault.STATE_OVERSIZE,))
    turns = [oversize, replace(rest[0], context=tuple(kept))]
    assert internal_states(turns) == ["", "<think>kami 100</think>"]


def test_gold_answers_are_facts_too():
    pages = {"france": "Doc 1 Paris, of France", "italy": "It is in Rome."}
    asked = episode(
        question("Paris", "Rome"),
        ("Known: nothing", "france"),
        ("the capital is Paris", "italy"),
        ("Rome (Italy)", "=Paris; Rome"),
        pages=pages,
    )
    assert marks(asked) == ["uns hel los", "uns uns hel"]
    assert trace(asked).used == (True, True)
    assert figures(asked) == {"survival": 0.0, "held": 2 / 3, "invention": 0.0, "redundancy": 0.0}


def test_where_nothing_was_seen_or_asked_figures_are_left_out():
    none = {"invention": 0.0, "bits_needed": 0.0, "bits_held": 0.0}
    assert figures(episode(LOOKUP, ("unknown", "=x"))) == none
    assert figures(episode(question("Paris"), ("unknown", "=x"))) == {"invention": 0.0}
    assert figures(episode(question(""), ("unknown", "=x"))) == {}


def test_a_trace_of_no_turns_has_no_columns():
    memory = trace(episode(LOOKUP))
    assert (memory.marks, memory.used, memory.redundant) == (((), ()), (False, False), ())


def test_survival_by_age_starts_when_a_fact_is_first_held():
    found = episode(
        LOOKUP,
        ("", "kami"),
        ("kami 100", "lone"),
        ("lone 101", "kami"),
        ("kami 100 lone 101", "=100; 101"),
    )
    assert survival_by_age(trace(found)) == {"0": 1.0, "1": 0.5, "2": 1.0}


def test_a_superseded_fact_has_no_age():
    taken = episode(UPDATE, ("", "kami"), ("kami 100", "lone"), ("kami 107 lone 101", "=107; 101"))
    assert survival_by_age(trace(taken)) == {"0": 1.0}


def test_a_curve_of_survival_is_over_tasks_that_have_the_age():
    short = episode(question("Paris"), ("", "france"), ("Paris", "=x"), pages={"france": "Paris"})
    curve = survival_curve([PERFECT, short])
    assert [(e.mean, e.num_values) for e in curve] == [(1.0, 2), (1.0, 1)]


def test_means_are_over_the_tasks_that_have_the_figure():
    found = aggregate([PERFECT, episode(question("Paris"), ("unknown", "=Paris"))])
    assert (found["survival"].mean, found["survival"].num_values) == (1.0, 1)
    assert (found["em"].mean, found["em"].num_values) == (1.5, 2)


def test_half_life_is_when_half_is_left():
    assert half_life(math.sqrt(0.5)) == pytest.approx(2.0)
    assert (half_life(0.5), half_life(0.0), half_life(1.0)) == (1.0, 0.0, None)
