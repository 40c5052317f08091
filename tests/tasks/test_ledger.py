"""The ledger: what a task hides, and what must be remembered."""

from collections import Counter

import pytest

from mem1.errors import ConfigError, DataError
from mem1.tasks import load_tasks, write_tasks
from mem1.tasks.ledger import (
    NAMES,
    VALUES,
    Ledger,
    LedgerConfig,
    combined,
    ledger_of,
    ledger_task,
    ledger_tasks,
    read_entries,
    write_notes,
)
from mem1.types import Task

FAMILIES = ["lookup", "chain", "update", "aggregate"]


def tasks(count=20, start=0, num_objectives=3, **dials):
    config = LedgerConfig(**dials)
    return ledger_tasks(config, num_objectives=num_objectives, count=count, start=start)


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


def pairs(count, **dials):
    """What is asked of each of so many pairs, what their two pages tell, and the answer."""
    for task in tasks(family="aggregate", num_objectives=1, count=count, **dials):
        ledger = ledger_of(task)
        first, second = (int(page.split()[2]) for page in ledger.pages.values())
        yield ledger.questions[0].split()[0], first, second, int(ledger.answers[0])


def test_an_aggregate_keeps_one_number_a_pair():
    for task in tasks(family="aggregate", num_objectives=2):
        ledger = ledger_of(task)
        first, _, third, _ = ledger.queries
        held = [list(held) for held in ledger.memory]
        assert held == [[], [first], [first], [first, third], [first, third]]


def test_a_pair_is_asked_for_the_larger_the_sum_or_the_count_each_as_often():
    asked = Counter(asked for asked, *_ in pairs(600))
    assert set(asked) == {"most", "sum", "count"}
    assert min(asked.values()) > 160


def test_the_answer_follows_from_both_pages():
    for asked, first, second, answer in pairs(60):
        rule = {
            "most": max(first, second),
            "sum": 100 + (first + second - 200) % 100,
            "count": 100 + (first + second - 100) % 100,
        }
        assert answer == rule[asked]


@pytest.mark.parametrize(
    ("asked", "first", "second", "answer"),
    [
        ("most", "142", "117", "142"),
        ("most", "117", "142", "142"),
        ("sum", "142", "117", "159"),
        ("sum", "142", "134", "106"),
        ("sum", "142", "100", "142"),
        ("count", "142", "0", "142"),
        ("count", "142", "1", "143"),
        ("count", "169", "1", "100"),
    ],
)
def test_sums_and_counts_go_round_among_the_values(asked, first, second, answer):
    assert combined(asked, first, second, num_values=70) == answer


def test_a_count_tells_how_many_came_and_evenly_whether_one_more_did():
    every = pairs(900, num_values=20)
    told = [(first, second) for asked, first, second, _ in every if asked == "count"]
    assert {first for first, _ in told} == set(range(100, 120))
    assert {second for _, second in told} == {0, 1}
    assert 0.4 < sum(second for _, second in told) / len(told) < 0.6


def test_guessing_is_right_once_in_num_values_times():
    seen = {ledger_of(task).answers[0] for task in tasks(count=2000, num_values=100)}
    assert seen == set(VALUES[:100])


def test_the_best_guess_is_right_once_in_num_values_times_or_nearly_twice_for_the_larger():
    answers = {"most": Counter(), "sum": Counter(), "count": Counter()}
    for asked, _, _, answer in pairs(6000, num_values=5):
        answers[asked][answer] += 1
    best = {it: max(found.values()) / found.total() for it, found in answers.items()}
    assert best == pytest.approx({"most": 9 / 25, "sum": 1 / 5, "count": 1 / 5}, abs=0.03)


@pytest.mark.parametrize(
    ("asked", "second", "forgot", "wrong"),
    [
        ("most", "117", {"kami": "117"}, {"kami": "120"}),
        ("sum", "117", {}, {"kami": "137"}),
        ("count", "1", {}, {"kami": "121"}),
    ],
)
def test_of_a_pair_one_knows_what_follows_from_what_one_held(asked, second, forgot, wrong):
    ledger = Ledger(
        questions=(f"{asked} kami lone",),
        queries=("kami", "lone"),
        pages={"kami": "found kami 142", "lone": f"found soru 3 lone {second}"},
        memory=({}, {"kami": "142"}, {"kami": "not to be looked at"}),
        num_values=100,
    )
    assert ledger.noted({"vade": "100"}, read=1) == {"vade": "100", "kami": "142"}
    assert ledger.noted({}, read=2) == forgot
    assert ledger.noted({"kami": "120", "vade": "100"}, read=2) == {**wrong, "vade": "100"}


def test_names_and_values_are_words_of_their_own():
    assert len(set(NAMES)) == 90
    assert not set(NAMES) & {"now", "next", "most", "sum", "count", "found"}


@pytest.mark.parametrize(
    "dials", [{"num_objectives": 0}, {"num_distractors": 17}, {"num_values": 201}]
)
def test_a_dial_out_of_range_is_refused_by_name(dials):
    with pytest.raises(ConfigError, match=f"ledger {next(iter(dials))}"):
        tasks(**dials)


def test_the_largest_task_has_names_enough():
    config = LedgerConfig(family="aggregate", num_distractors=16)
    assert len(ledger_of(ledger_task(config, num_objectives=32, number=0)).pages) == 64


def test_another_task_is_refused_by_what_it_lacks():
    task = Task(id="qa-1", objectives=())
    with pytest.raises(DataError, match=r"'qa-1' is not of the ledger.*pages"):
        ledger_of(task)


def test_a_ledger_knows_its_answers():
    (task,) = tasks(count=1)
    assert isinstance(ledger_of(task), Ledger)
    assert ledger_of(task).answers == tuple(it.answers[0] for it in task.objectives)


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


def test_notes_are_read_as_they_were_written():
    held = {"kami": "142", "lone": "117"}
    assert dict(read_entries(write_notes(held, query="soru"))) == held
    assert write_notes({}) == "<think> unknown</think>"


def test_a_number_belongs_to_the_name_before_it():
    text = "Kami is 142, lone soru: 7; 99 vanished"
    assert read_entries(text) == [("kami", "142"), ("soru", "7")]
