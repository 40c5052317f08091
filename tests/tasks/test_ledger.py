"""The ledger: what a task hides, what must be remembered, and how well the expert does it."""

import random

import pytest

from mem1.errors import ConfigError, DataError
from mem1.rewards import ExactMatchReward
from mem1.tasks import load_tasks, write_tasks
from mem1.tasks.ledger import (
    NAMES,
    VALUES,
    Imperfections,
    Ledger,
    LedgerConfig,
    demonstrate,
    ledger_of,
    ledger_task,
    ledger_tasks,
    read_entries,
    write_notes,
)
from mem1.text import parse_reply
from mem1.types import Objective, Task

FAMILIES = ["lookup", "chain", "update", "aggregate"]
ACTIONS = ("search", "answer")


def tasks(count=20, start=0, num_objectives=3, **dials):
    config = LedgerConfig(**dials)
    return ledger_tasks(config, num_objectives=num_objectives, count=count, start=start)


def made(*, pages, memory, questions=("kami", "lone")):
    """A task of given pages; each is searched for in their order."""
    return Task(
        id="made",
        objectives=tuple(
            Objective(question=q, answers=(a,))
            for q, a in zip(questions, memory[-1].values(), strict=True)
        ),
        metadata={"num_values": 2, "queries": list(pages), "pages": pages, "memory": memory},
    )


LOOKUP = made(
    pages={"kami": "found kami 100", "lone": "found lone 101"},
    memory=[{}, {"kami": "100"}, {"kami": "100", "lone": "101"}],
)


def replies(task=LOOKUP, *, max_turns=4, seed=0, **faults):
    rng = random.Random(seed)
    return demonstrate(task, max_turns=max_turns, rng=rng, faults=Imperfections(**faults))


def reward(task, said):
    action = parse_reply(said[-1], actions=ACTIONS).action
    return ExactMatchReward()(task, answer=action.argument, turns=()).total


@pytest.mark.parametrize("family", FAMILIES)
def test_a_number_always_gives_the_same_task_and_no_two_numbers_do(family):
    first, again = tasks(family=family), tasks(family=family, count=10, start=10)
    assert first[10:] == again
    assert len({task.id for task in first}) == len({str(task.metadata) for task in first}) == 20
    assert tasks(family=family, seed=1)[0] != first[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_page_of_its_own_name_or_an_override_tells_a_value(family):
    for task in tasks(family=family, num_distractors=2):
        ledger = ledger_of(task)
        for name, page in ledger.pages.items():
            told = {other for other in ledger.pages if f" {other} " in f" {page} "}
            assert name in told
            assert "now" in page or "next" in page or told == {name}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_page_holds_the_entry_and_as_many_distractors_as_dialled(family):
    for task in tasks(family=family, num_distractors=2):
        for page in ledger_of(task).pages.values():
            plain = page.partition(" now ")[0].partition(" next ")[0]
            assert len(plain.split()) == 1 + 2 * 3


def test_the_entry_stands_anywhere_among_distractors():
    pages = [ledger_of(task).pages for task in tasks(num_distractors=2)]
    places = {page.split().index(name) for told in pages for name, page in told.items()}
    assert places == {1, 3, 5}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_perfect_expert_earns_everything_with_one_search_a_page(family):
    for task in tasks(family=family, num_distractors=1):
        said = replies(task, max_turns=9)
        assert len(said) == len(ledger_of(task).queries) + 1
        assert reward(task, said) == 3.0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_task_survives_being_stored(family, tmp_path):
    write_tasks(tasks(family=family), tmp_path / "tasks.jsonl")
    assert load_tasks(tmp_path / "tasks.jsonl") == tasks(family=family)


def test_memory_of_a_lookup_grows_by_the_page_that_was_read():
    ledger = ledger_of(tasks(count=1)[0])
    assert [list(held) for held in ledger.memory] == [
        list(ledger.queries[:read]) for read in range(4)
    ]


def test_a_chain_names_only_its_first_link():
    ledger = ledger_of(tasks(family="chain", count=1)[0])
    first, second, third = ledger.queries
    assert ledger.questions == (first, "next", "next")
    assert [page.partition(" next ")[2] for page in ledger.pages.values()] == [second, third, ""]


def test_an_update_replaces_what_was_held():
    for task in tasks(family="update", num_objectives=2):
        ledger = ledger_of(task)
        first, second = ledger.queries
        old, new = ledger.memory[1][first], ledger.memory[2][first]
        assert old != new
        assert ledger.pages[second].endswith(f" now {first} {new}")
        assert ledger.news(2) == {first: new, second: ledger.memory[2][second]}


def test_no_name_is_overridden_twice():
    for task in tasks(family="update", num_objectives=8):
        overridden = [
            page.split(" now ")[1].split()[0]
            for page in ledger_of(task).pages.values()
            if " now " in page
        ]
        assert len(set(overridden)) == len(overridden) == 4


def test_an_aggregate_keeps_one_number_a_pair():
    for task in tasks(family="aggregate", num_objectives=2):
        ledger = ledger_of(task)
        values = [int(page.split()[2]) for page in ledger.pages.values()]
        assert [len(held) for held in ledger.memory] == [0, 1, 1, 2, 2]
        assert ledger.answers == (str(max(values[:2])), str(max(values[2:])))


def test_guessing_is_right_once_in_num_values_times():
    seen = {ledger_of(task).answers[0] for task in tasks(count=2000, num_values=100)}
    assert seen == set(VALUES[:100])


def test_the_perfect_expert_word_for_word():
    assert replies() == [
        "<think> kami</think><search> kami</search>",
        "<think> kami 100 lone</think><search> lone</search>",
        "<think> kami 100 lone 101</think><answer> 100; 101</answer>",
    ]


def test_an_expert_that_forgets_everything_knows_nothing():
    assert replies(forget=1.0)[1:] == [
        "<think> lone</think><search> lone</search>",
        "<think> unknown</think><answer> unknown; unknown</answer>",
    ]


def test_a_corrupted_value_is_another_one_each_time_it_is_copied():
    assert replies(corrupt=1.0)[1:] == [
        "<think> kami 101 lone</think><search> lone</search>",
        "<think> kami 100 lone 100</think><answer> 100; 100</answer>",
    ]


def test_a_redundant_search_is_for_what_is_held_and_only_with_turns_to_spare():
    assert replies(redundant=1.0) == [
        "<think> kami</think><search> kami</search>",
        "<think> kami 100 lone</think><search> kami</search>",
        "<think> kami 100 lone</think><search> lone</search>",
        "<think> kami 100 lone 101</think><answer> 100; 101</answer>",
    ]


def test_an_early_answer_ends_it():
    assert replies(early_answer=1.0) == [
        "<think> unknown</think><answer> unknown; unknown</answer>"
    ]


def test_notes_that_slip_are_lost_and_the_action_counts():
    assert replies(format_slip=1.0) == [
        "<think> kami<search> kami</search>",
        "<think> kami 100 lone<search> lone</search>",
        "<think> lone 101</think><answer> unknown; 101</answer>",
    ]


def test_the_last_turn_is_used_to_answer():
    assert replies(max_turns=2)[1:] == ["<think> kami 100</think><answer> 100; unknown</answer>"]


def test_a_flawless_episode_has_no_failing():
    everything = {"forget": 1.0, "corrupt": 1.0, "early_answer": 1.0}
    assert replies(flawless=1.0, **everything) == replies()
    said = [replies(flawless=0.5, seed=seed, **everything) for seed in range(40)]
    assert 10 < said.count(replies()) < 30
    assert 10 < said.count(replies(early_answer=1.0)) < 30


def test_the_chance_of_an_early_answer_does_not_depend_on_the_length():
    for num_objectives in (1, 8):
        (task,) = tasks(num_objectives=num_objectives, count=1)
        faults = Imperfections(early_answer=0.5)
        whole = [
            len(demonstrate(task, max_turns=20, rng=random.Random(seed), faults=faults)) - 1
            == num_objectives
            for seed in range(400)
        ]
        assert 160 < sum(whole) < 240


def test_the_same_rng_gives_the_same_replies():
    faults = {"forget": 0.3, "corrupt": 0.3, "redundant": 0.3, "early_answer": 0.1}
    said = [replies(max_turns=9, seed=seed, **faults) for seed in range(20)]
    assert said == [replies(max_turns=9, seed=seed, **faults) for seed in range(20)]
    assert len({str(one) for one in said}) > 5


def test_names_and_values_are_words_of_their_own():
    assert len(set(NAMES)) == 90
    assert not set(NAMES) & {"now", "next", "most", "found"}


@pytest.mark.parametrize(
    "dials", [{"num_objectives": 0}, {"num_distractors": 17}, {"num_values": 201}]
)
def test_a_dial_out_of_range_is_refused_by_name(dials):
    with pytest.raises(ConfigError, match=f"ledger {next(iter(dials))}"):
        tasks(**dials)


def test_a_failing_that_is_no_probability_is_refused():
    with pytest.raises(ConfigError, match="forget is 2"):
        Imperfections(forget=2)


def test_the_largest_task_has_names_enough():
    config = LedgerConfig(family="aggregate", num_distractors=16)
    assert len(ledger_of(ledger_task(config, num_objectives=32, number=0)).pages) == 64


def test_another_task_is_refused_by_what_it_lacks():
    task = Task(id="qa-1", objectives=LOOKUP.objectives)
    with pytest.raises(DataError, match=r"'qa-1' is not of the ledger.*pages"):
        ledger_of(task)


def test_a_ledger_knows_its_answers():
    assert isinstance(ledger_of(LOOKUP), Ledger)
    assert ledger_of(LOOKUP).answers == ("100", "101")


def test_each_family_says_what_must_survive_each_turn():
    needed = {}
    for family in FAMILIES:
        (task,) = tasks(family=family, num_objectives=2, num_values=128, count=1)
        ledger = ledger_of(task)
        needed[family] = ledger.needed_bits, ledger.needed_tokens
    one_more_each = (0.0, 7.0, 14.0), (0, 2, 4)
    assert needed == {
        "lookup": one_more_each,
        "chain": one_more_each,
        "update": one_more_each,
        "aggregate": ((0.0, 7.0, 7.0, 14.0, 14.0), (0, 2, 2, 4, 4)),
    }


def test_what_must_survive_is_what_the_perfect_expert_writes():
    (task,) = tasks(num_objectives=4, count=1)
    words = [len(said.split("</think>")[0].split()) - 1 for said in replies(task, max_turns=9)]
    assert [count - 1 for count in words[:-1]] + words[-1:] == list(ledger_of(task).needed_tokens)


def test_notes_are_read_as_they_were_written():
    held = {"kami": "142", "lone": "117"}
    assert dict(read_entries(write_notes(held, query="soru"))) == held
    assert write_notes({}) == "<think> unknown</think>"


def test_a_number_belongs_to_the_name_before_it():
    text = "Kami is 142, lone soru: 7; 99 vanished"
    assert read_entries(text) == [("kami", "142"), ("soru", "7")]
