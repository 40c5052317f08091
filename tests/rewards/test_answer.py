"""Exact match, F1, and how an answer is cut into parts."""

import pytest

from mem1.rewards import ExactMatchReward, exact_match, f1, score_answer, split_answer
from mem1.types import Objective, Task


def task(*golds: str | tuple[str, ...]) -> Task:
    answers = [(gold,) if isinstance(gold, str) else gold for gold in golds]
    return Task(id="t", objectives=tuple(Objective(question="q?", answers=a) for a in answers))


def test_exact_match_ignores_case_punctuation_articles_and_blanks():
    assert exact_match("the  U.S. Senate!", ["us senate"]) == 1.0
    assert exact_match("House", ["us senate", "HOUSE"]) == 1.0
    assert exact_match("a house of cards", ["house"]) == 0.0


@pytest.mark.parametrize("empty", ["", "the", "?!", "..."])
def test_an_empty_normal_form_never_matches(empty):
    assert (exact_match(empty, ["the"]), f1(empty, ["the"])) == (0.0, 0.0)


def test_f1_counts_words_with_multiplicity():
    # 2 common words of 3 predicted and 2 gold: 2 * 2 / (3 + 2)
    assert f1("new york york", ["New York"]) == pytest.approx(0.8)
    assert f1("x y", ["z", "x"]) == pytest.approx(2 / 3)


def test_parts_are_scored_in_order():
    score = score_answer(task("Paris", "Rome"), "Rome; Paris")
    assert (score.exact_match, score.well_formed) == ((0.0, 0.0), True)


def test_a_missing_part_scores_nothing_and_strict_scoring_gives_zero_for_all():
    score = score_answer(task("Paris", "Rome"), "Paris")
    assert (score.exact_match, score.well_formed) == ((1.0, 0.0), False)
    assert score.parts() == {"em": 1.0, "em_strict": 0.0, "f1": 1.0, "f1_strict": 0.0}


def test_parts_beyond_the_last_objective_are_ignored_but_not_well_formed():
    score = score_answer(task("Paris"), "Paris; Rome")
    assert (score.exact_match, score.well_formed) == ((1.0,), False)


def test_no_answer_scores_nothing():
    assert score_answer(task("Paris"), None).exact_match == (0.0,)
    assert score_answer(task("Paris"), "").well_formed is False


def test_a_gold_answer_with_semicolons_can_be_scored():
    two = task("Paris", "Catch 22; A Novel", "Rome")
    assert split_answer("Paris; Catch 22; A Novel; Rome", two) == (
        "Paris",
        "Catch 22; A Novel",
        "Rome",
    )
    assert score_answer(two, "Paris; Catch 22; A Novel; Rome").exact_match == (1.0, 1.0, 1.0)


def test_semicolons_do_not_let_an_answer_hedge():
    assert score_answer(task("Paris"), "Rome; Paris").exact_match == (0.0,)
    assert split_answer("a; b", task("x", "y; z")) == ("a", "b")


def test_a_final_semicolon_adds_no_part():
    assert score_answer(task("Paris", "Rome"), "Paris; Rome;").well_formed


def test_the_reward_is_the_number_of_objectives_answered_exactly():
    output = ExactMatchReward()(task("Paris", "Rome", "Oslo"), answer="paris; x; oslo", turns=())
    assert output.total == 2.0
