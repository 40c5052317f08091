"""Figures of trajectories: the arithmetic is visible, and every episode counts."""

from dataclasses import replace
from typing import Any

import made
import numpy as np
import pytest
from made import task, turn

from mem1.evals import aggregate, build_report, measure, read_report, write_report
from mem1.evals.metrics import Estimate, compressions, estimates, over_tasks
from mem1.types import Segment, SegmentKind, StopReason, Trajectory, Turn


def trajectory(
    *turns: Turn,
    id: str = "t",
    answer: str | None = None,
    reason: StopReason | None = None,
    **settings: Any,
) -> Trajectory:
    """An episode of a task with two objectives, golds `oslo` and `rome`."""
    asked = task("oslo", "rome", name=id)
    return made.trajectory(asked, turns=turns, answer=answer, stop_reason=reason, **settings)


TWO_TURNS = (turn(prompt=10, sampled=4), turn(prompt=10, kept=5, sampled=3))


def test_figures_of_a_trajectory():
    assert measure(trajectory(*TWO_TURNS, answer="oslo; x")) == {
        "em": 1.0,
        "em_strict": 1.0,
        "f1": 1.0,
        "f1_strict": 1.0,
        "peak_tokens": 18.0,  # 10 + 5 + 3
        "peak_tokens_without_prompt": 8.0,  # 5 + 3
        "dependency": 96.0,  # (10 + 2) * 4 + (15 + 1) * 3
        "generated_tokens": 7.0,
        "prompt_tokens": 25.0,
        "num_turns": 2.0,
        "turns_per_objective": 1.0,
        "compressions": 1.0,
        "answer_rate": 1.0,
        "valid_turns": 1.0,
        "seconds": 2.5,
        "invention": 0.0,  # nothing was seen: no other figure of the memory is defined
    }


def with_state(tokens: int) -> Turn:
    first, *others = (shown := turn(prompt=10, kept=5, sampled=3)).context
    state = Segment(
        kind=SegmentKind.INTERNAL_STATE, turn=1, token_ids=(7,) * tokens, text="<think>", start=0
    )
    return replace(shown, context=(first, state, *others))


def test_state_tokens_are_a_mean_over_the_contexts_that_hold_a_state():
    shown = trajectory(turn(prompt=10, sampled=4), with_state(6), with_state(9))
    assert measure(shown)["state_tokens"] == 7.5
    assert "state_tokens" not in measure(trajectory(*TWO_TURNS))


def test_a_trajectory_without_turns_has_figures_too():
    figures = measure(trajectory(reason=StopReason.PROMPT_TOO_LONG))
    assert (figures["peak_tokens"], figures["valid_turns"], figures["em"]) == (0.0, 0.0, 0.0)


def test_a_failed_episode_counts_and_scores_nothing():
    failed = trajectory(*TWO_TURNS, id="u", reason=StopReason.ENGINE_ERROR)
    report = build_report(
        [trajectory(*TWO_TURNS, answer="oslo; rome"), failed], command="", config={}
    )
    (cell,) = report.cells
    assert (cell.num_trajectories, cell.num_failures) == (2, 1)
    assert cell.estimates["em"].mean == 1.0
    assert cell.stop_reasons == {"answered": 1, "engine_error": 1}


def test_one_value_has_no_interval():
    assert aggregate([trajectory(*TWO_TURNS)])["num_turns"] == Estimate(
        mean=2.0, low=None, high=None, num_values=1
    )
    assert aggregate([]) == {}


def test_samples_of_one_task_are_one_value():
    once, twice = trajectory(*TWO_TURNS, answer="oslo; rome"), trajectory(*TWO_TURNS, answer="x")
    assert aggregate([once, twice, trajectory(id="u")])["em"].num_values == 2


def test_the_interval_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    draws = [estimates(rng.exponential(size=(60, 1)), seed=i)[0] for i in range(300)]
    covered = sum(e.low <= 1.0 <= e.high for e in draws) / 300
    assert 0.88 <= covered <= 0.98


def test_a_value_that_is_missing_is_not_a_zero():
    values = np.array([[1.0, np.nan], [0.0, 0.5], [2.0, np.nan]])
    whole, partial = estimates(values, seed=0)
    assert (whole.mean, whole.num_values) == (1.0, 3)
    assert partial == Estimate(mean=0.5, low=None, high=None, num_values=1)


def test_a_figure_that_no_trajectory_has_is_left_out():
    assert "survival" not in aggregate([trajectory(*TWO_TURNS), trajectory(id="u")])
    rows = [("a", {"x": 1.0}), ("a", {}), ("b", {"y": 3.0}), ("c", {"x": 0.0})]
    found = over_tasks(rows, seed=0)
    assert {name: (e.mean, e.num_values) for name, e in found.items()} == {
        "x": (0.5, 2),
        "y": (3.0, 1),
    }


def test_a_context_that_only_grows_is_not_compressed():
    grown = turn(prompt=10, sampled=2)
    kept = replace(grown, context=grown.context[:1])
    assert compressions(trajectory(kept, grown, kept, grown)) == 1.0
    assert compressions(trajectory(kept, grown, grown)) == 0.0


def test_cells_are_ordered_by_objectives_and_say_bound_and_exactness():
    inexact = turn(prompt=10, sampled=4, exact=False)
    found = build_report(
        [
            trajectory(*TWO_TURNS, policy="internal_state", bound=20),
            trajectory(inexact, policy="full"),
        ],
        command="",
        config={},
    )
    assert [(c.context_policy, c.bound, c.max_tokens, c.num_inexact) for c in found.cells] == [
        ("internal_state", 20, 18, 0),
        ("full", None, 14, 1),
    ]


def test_a_report_is_written_whole_and_read_back(tmp_path):
    report = build_report(
        [trajectory(*TWO_TURNS, id=str(i), answer="oslo; rome", bound=20) for i in range(3)],
        command="mem1 eval x.toml",
        config={"run": {"max_turns": 6}},
    )
    write_report(report, tmp_path)
    assert read_report(tmp_path) == report
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "em.svg",
        "peak_tokens.svg",
        "report.json",
        "report.md",
    ]
    text = (tmp_path / "report.md").read_text()
    assert "| 2 | full | 20 | 18 | yes | 2.00" in text
    assert "Cells hold as few as 3 tasks" in text


def test_a_broken_promise_would_be_shouted():
    report = build_report([trajectory(*TWO_TURNS, bound=17)], command="", config={})
    from mem1.evals.report import report_markdown

    assert "| 17 | 18 | NO |" in report_markdown(report)


@pytest.mark.parametrize("content", [None, "{", '{"cells": []}'])
def test_a_folder_without_a_report_is_named(tmp_path, content):
    from mem1.errors import DataError

    if content is not None:
        (tmp_path / "report.json").write_text(content)
    with pytest.raises(DataError, match=r"report\.json"):
        read_report(tmp_path)
