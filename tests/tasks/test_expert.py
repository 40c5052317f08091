"""The ledger's expert: how well it does a task, and what its failings look like."""

import random

import pytest

from mem1.errors import ConfigError
from mem1.rewards import ExactMatchReward
from mem1.tasks.expert import Imperfections, demonstrate
from mem1.tasks.ledger import LedgerConfig, ledger_of, ledger_tasks
from mem1.text import parse_reply
from mem1.types import Objective, Task

FAMILIES = ["lookup", "chain", "update", "aggregate"]
ACTIONS = ("search", "answer")


def tasks(count=20, num_objectives=3, **dials):
    return ledger_tasks(LedgerConfig(**dials), num_objectives=num_objectives, count=count)


def made(*, pages, memory, questions=("kami", "lone"), num_values=2):
    """A task of given pages; each is searched for in their order."""
    return Task(
        id="made",
        objectives=tuple(
            Objective(question=q, answers=(a,))
            for q, a in zip(questions, memory[-1].values(), strict=True)
        ),
        metadata={
            "num_values": num_values,
            "queries": list(pages),
            "pages": pages,
            "memory": memory,
        },
    )


LOOKUP = made(
    pages={"kami": "found kami 100", "lone": "found lone 101"},
    memory=[{}, {"kami": "100"}, {"kami": "100", "lone": "101"}],
)


def pair(asked, *, second, answer):
    return made(
        questions=(f"{asked} kami lone",),
        pages={"kami": "found kami 101", "lone": f"found lone {second}"},
        memory=[{}, {"kami": "101"}, {"kami": answer}],
    )


MOST = pair("most", second="100", answer="101")
SUM = pair("sum", second="101", answer="100")
COUNT = pair("count", second="1", answer="100")


def replies(task=LOOKUP, *, max_turns=4, seed=0, **faults):
    rng = random.Random(seed)
    return demonstrate(task, max_turns=max_turns, rng=rng, faults=Imperfections(**faults))


def reward(task, said):
    action = parse_reply(said[-1], actions=ACTIONS).action
    return ExactMatchReward()(task, answer=action.argument, turns=()).total


@pytest.mark.parametrize("family", FAMILIES)
def test_a_perfect_expert_earns_everything_with_one_search_a_page(family):
    for task in tasks(family=family, num_distractors=1):
        said = replies(task, max_turns=9)
        assert len(said) == len(ledger_of(task).queries) + 1
        assert reward(task, said) == 3.0


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


@pytest.mark.parametrize("family", FAMILIES)
def test_searching_again_changes_nothing(family):
    again = 0
    for seed, task in enumerate(tasks(family=family)):
        said = replies(task, max_turns=12, seed=seed, redundant=0.5)
        again += len(said) - len(ledger_of(task).queries) - 1
        assert reward(task, said) == 3.0
    assert again > 20


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


@pytest.mark.parametrize("task", [SUM, COUNT])
def test_a_sum_is_kept_in_the_place_of_its_first_value(task):
    assert replies(task)[1:] == [
        "<think> kami 101 lone</think><search> lone</search>",
        "<think> kami 100</think><answer> 100</answer>",
    ]


def test_whose_first_value_is_lost_the_sum_is_unknown_and_the_second_value_the_larger():
    last = [replies(task, format_slip=1.0)[-1] for task in (MOST, SUM, COUNT)]
    unknown = "<think> unknown</think><answer> unknown</answer>"
    assert last == ["<think> kami 100</think><answer> 100</answer>", unknown, unknown]


def test_what_follows_from_a_corrupted_value_is_corrupted():
    # 101 is kept as 100: the larger is then 100, sum and count are 101, each kept as the other.
    last = [replies(task, corrupt=1.0)[-1] for task in (MOST, SUM, COUNT)]
    assert [reply.partition("<answer>")[2] for reply in last] == [
        " 101</answer>",
        " 100</answer>",
        " 100</answer>",
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


def test_a_failing_that_is_no_probability_is_refused():
    with pytest.raises(ConfigError, match="forget is 2"):
        Imperfections(forget=2)


def test_what_must_survive_is_what_the_perfect_expert_writes():
    (task,) = tasks(num_objectives=4, count=1)
    words = [len(said.split("</think>")[0].split()) - 1 for said in replies(task, max_turns=9)]
    assert [count - 1 for count in words[:-1]] + words[-1:] == list(ledger_of(task).needed_tokens)
