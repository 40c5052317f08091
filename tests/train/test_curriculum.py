"""Levels: what they are made of, and when a run moves on."""

import pytest

from mem1.errors import ConfigError
from mem1.tasks.ledger import LedgerConfig, ledger_tasks
from mem1.train.config import CurriculumConfig
from mem1.train.curriculum import Level, Place, levels_of, moved


def pairs(num_objectives, internal_state=()):
    config = CurriculumConfig(threshold=0.8, internal_state=internal_state)
    levels = levels_of(config, num_objectives=num_objectives, internal_state=40)
    return [(level.num_objectives, level.internal_state) for level in levels]


@pytest.mark.parametrize(
    ("num_objectives", "caps", "expected"),
    [
        ((2, 4, 8), (), [(2, None), (4, None), (8, None)]),
        ((2,), (40, 30), [(2, 40), (2, 30)]),
        ((2, 4), (30,), [(2, 30), (4, 30)]),
        ((2, 4, 4), (40, 40, 24), [(2, 40), (4, 40), (4, 24)]),
        ((), (40, 30), [(None, 40), (None, 30)]),
    ],
)
def test_a_level_is_a_number_of_objectives_and_a_cap(num_objectives, caps, expected):
    assert pairs(num_objectives, caps) == expected


def test_without_a_curriculum_there_is_one_level_of_all_tasks_and_the_whole_budget():
    assert levels_of(None, num_objectives=(2, 4), internal_state=40) == (Level(),)


@pytest.mark.parametrize(
    ("num_objectives", "caps", "message"),
    [
        ((2,), (), "train.curriculum has one level: give several tasks.num_objectives"),
        ((), (30,), "train.curriculum has one level"),
        ((2, 4, 8), (40, 30), "3 tasks.num_objectives and 2 train.curriculum.internal_state"),
        ((2, 4), (41, 30), "holds 41, but the bound follows from budget.internal_state = 40"),
    ],
)
def test_levels_that_do_not_fit_together_are_refused(num_objectives, caps, message):
    with pytest.raises(ConfigError, match=message):
        pairs(num_objectives, caps)


def test_a_level_picks_the_tasks_of_its_number():
    tasks = [t for n in (1, 2) for t in ledger_tasks(LedgerConfig(), num_objectives=n, count=2)]
    assert Level(num_objectives=2).pick(tasks) == tasks[2:]
    assert Level().pick(tasks) == tasks


def levels_after(*scores, threshold=0.8, window=2, num_levels=3):
    """The level of a run, counted from 1, after each step of these scores."""
    config = CurriculumConfig(threshold=threshold, window=window)
    place, found = Place(), []
    for score in scores:
        place = moved(place, score=score, config=config, num_levels=num_levels)
        found.append(place.level + 1)
    return found


def test_a_run_moves_on_when_the_mean_of_a_whole_window_reaches_the_threshold():
    assert levels_after(1.0, 0.5, 1.0, 0.5, 1.0, 0.6) == [1, 1, 1, 1, 1, 2]


def test_one_good_step_is_no_window():
    assert levels_after(1.0, window=1) == [2]
    assert levels_after(1.0, 1.0, window=3) == [1, 1]


def test_a_new_level_begins_with_no_scores():
    assert levels_after(1.0, 1.0, 1.0, 0.0, 1.0, 1.0) == [1, 2, 2, 2, 2, 3]


def test_nothing_comes_after_the_last_level_and_no_run_goes_back():
    assert levels_after(*[1.0] * 6, 0.0, 0.0) == [1, 2, 2, 3, 3, 3, 3, 3]


def test_a_threshold_that_equal_scores_just_reach_is_reached():
    assert levels_after(*[0.7] * 7, threshold=0.7, window=7) == [1] * 6 + [2]


def test_a_threshold_of_zero_is_a_timetable():
    assert levels_after(*[0.0] * 6, threshold=0.0) == [1, 2, 2, 3, 3, 3]


def test_without_a_curriculum_a_run_stays_where_it_is():
    assert moved(Place(), score=1.0, config=None, num_levels=1) == Place()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 1.5}, "train.curriculum.threshold = 1.5: give 0 to 1"),
        ({"threshold": -0.1}, "train.curriculum.threshold = -0.1: give 0 to 1"),
        ({"window": 0}, "train.curriculum.window = 0: give at least 1"),
        ({"internal_state": (30, 0)}, r"internal_state = \[30, 0\]: a cap is at least 1 token"),
    ],
)
def test_a_curriculum_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        CurriculumConfig(**{"threshold": 0.8} | settings)
