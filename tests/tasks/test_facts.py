"""What a task's answers hang on, and what texts say of it."""

from mem1.tasks.facts import Fact, facts_of, inferred, newest
from mem1.types import Objective, Task


def task(*questions: str, pages: dict[str, str], memory: list[dict[str, str]]) -> Task:
    return Task(
        id="t",
        objectives=tuple(
            Objective(question=question, answers=(answer,))
            for question, answer in zip(questions, memory[-1].values(), strict=True)
        ),
        metadata={"num_values": 128, "queries": list(pages), "pages": pages, "memory": memory},
    )


LOOKUP = task(
    "kami",
    "lone",
    pages={"kami": "found soru 9 kami 100", "lone": "found lone 101"},
    memory=[{}, {"kami": "100"}, {"kami": "100", "lone": "101"}],
)
UPDATE = task(
    "kami",
    "lone",
    pages={"kami": "found kami 100", "lone": "found lone 101 now kami 107"},
    memory=[{}, {"kami": "100"}, {"kami": "107", "lone": "101"}],
)
LARGER = task(
    "most kami lone",
    pages={"kami": "found kami 100", "lone": "found lone 107"},
    memory=[{}, {"kami": "100"}, {"kami": "107"}],
)
SMALLER = task(
    "most kami lone",
    pages={"kami": "found kami 107", "lone": "found lone 100"},
    memory=[{}, {"kami": "107"}, {"kami": "107"}],
)
SUM = task(
    "sum kami lone",
    pages={"kami": "found kami 142", "lone": "found lone 117"},
    memory=[{}, {"kami": "142"}, {"kami": "131"}],
)
COUNT = task(
    "count kami lone",
    pages={"kami": "found kami 142", "lone": "found lone 1"},
    memory=[{}, {"kami": "142"}, {"kami": "143"}],
)
NO_MORE = task(
    "count kami lone",
    pages={"kami": "found kami 142", "lone": "found lone 0"},
    memory=[{}, {"kami": "142"}, {"kami": "142"}],
)


def rows(task: Task) -> list[tuple[str, str, int, str | None]]:
    return [(f.key, f.values[0], f.objective, f.page) for f in facts_of(task).rows]


def test_a_fact_of_the_ledger_knows_its_page_and_its_objective():
    assert rows(LOOKUP) == [("kami", "100", 0, "kami"), ("lone", "101", 1, "lone")]
    assert facts_of(LOOKUP).bits == 7.0


def test_an_override_is_a_later_fact_of_the_same_objective():
    assert rows(UPDATE) == [
        ("kami", "100", 0, "kami"),
        ("kami", "107", 0, "lone"),
        ("lone", "101", 1, "lone"),
    ]


def test_only_a_larger_value_is_a_fact_of_its_pair():
    assert rows(LARGER) == [("kami", "100", 0, "kami"), ("kami", "107", 0, "lone")]
    assert rows(SMALLER) == [("kami", "107", 0, "kami")]


def test_a_sum_follows_from_the_values_that_it_supersedes():
    kami, lone = ("kami", "142", 0, "kami"), ("lone", "117", 0, "lone")
    assert rows(SUM) == [kami, lone, ("kami", "131", 0, "lone")]
    assert rows(COUNT) == [kami, ("lone", "1", 0, "lone"), ("kami", "143", 0, "lone")]
    assert rows(NO_MORE) == [kami]
    found = facts_of(SUM).rows
    assert [(sorted(row.supersedes), row.is_sum) for row in found] == [
        ([], False),
        ([], False),
        ([0, 1], True),
    ]
    assert [inferred(found, told) for told in ({0}, {1}, {1, 0}, {2})] == [
        {0},
        {1},
        {0, 1, 2},
        {2},
    ]


def test_no_page_alone_tells_a_sum_though_it_be_the_second_value():
    same = task(
        "sum kami lone",
        pages={"kami": "found kami 100", "lone": "found lone 117"},
        memory=[{}, {"kami": "100"}, {"kami": "117"}],
    )
    for asked in (SUM, COUNT, same):
        assert [facts_of(asked).told(text) for text in asked.metadata["pages"].values()] == [
            {0},
            {1},
        ]


def test_a_page_tells_its_facts_and_distractors_tell_none():
    for asked in (LOOKUP, UPDATE, LARGER):
        facts = facts_of(asked)
        for page, text in asked.metadata["pages"].items():
            told = {n for n, row in enumerate(facts.rows) if row.page == page}
            assert facts.told(f"\n<information>{text}</information>\n") == told
    assert facts_of(LOOKUP).told("found soru 9") == set()


def test_notes_are_right_wrong_or_silent():
    facts = facts_of(UPDATE)
    assert facts.said("<think> kami 100 lone 101 soru</think>") == {0: True, 2: True}
    assert facts.said("kami 107") == {1: True}
    assert facts.said("kami 199 lone") == {0: False, 1: False}
    assert facts.said("lone 101 kami") == {2: True}


def test_the_smaller_value_of_a_pair_is_not_made_up():
    assert facts_of(SMALLER).said("kami 100") == {}
    assert facts_of(SMALLER).said("kami 101") == {0: False}


def test_the_second_value_in_the_place_of_a_sum_is_wrong():
    facts = facts_of(SUM)
    assert facts.said("kami 117") == {0: False, 2: False}
    assert facts.said("kami 142 lone 117") == {0: True, 1: True}
    assert facts.said("kami 131 lone 142") == {1: False, 2: True}


def test_the_last_known_fact_of_an_objective_counts():
    rows = facts_of(UPDATE).rows
    assert newest(rows, ()) == {}
    assert newest(rows, {0}) == {0: 0}
    assert newest(rows, [2, 1, 0]) == newest(rows, {1, 2}) == {0: 1, 1: 2}
    assert newest(facts_of(SUM).rows, {0, 1}) == newest(facts_of(SUM).rows, {0, 2}) == {0: 2}


def question(*answers: str) -> Task:
    return Task(id="q", objectives=(Objective(question="Who?", answers=answers),))


def test_a_gold_answer_is_a_fact_and_its_aliases_are_one():
    (row,) = facts_of(question("The Beatles", "Beatles", "Fab Four", "the")).rows
    expected = ("beatles", "fab four")
    assert row == Fact(key="Who?", values=expected, objective=0, page=None)
    assert facts_of(question("x")).bits is None


def test_an_answer_is_said_by_its_whole_words_in_normal_form():
    facts = facts_of(question("New York"))
    assert facts.told("<information>Doc 1(Title: New-York) in new  york.</information>") == {0}
    assert facts.said("<think>New York</think>") == {0: True}
    assert facts.said("new yorker") == facts.said("york, new") == {}


def test_a_question_without_gold_answers_has_no_fact():
    assert facts_of(question()).rows == ()
