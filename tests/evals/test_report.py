"""A report says what was found, how episodes ended, and what the figures are worth."""

from pathlib import Path

import pytest
from made import task, trajectory, turn
from remembered import LOOKUP, episode, question

from mem1.context import Full
from mem1.errors import DataError
from mem1.evals import EvalReport, build_report, read_report, write_report
from mem1.evals.report import report_markdown
from mem1.types import StopReason, Trajectory


def report(*trajectories: Trajectory) -> EvalReport:
    return build_report(trajectories, command="mem1 eval demo.toml", config={"run": {"samples": 1}})


def small() -> EvalReport:
    two = task("Paris", "Rome", name="two")
    return report(
        trajectory(two, policy="full"),
        trajectory(policy="full"),
        trajectory(policy="internal_state", bound=19),
        trajectory(two, policy="internal_state", bound=19, answer=None),
    )


def test_cells_are_ordered_by_number_of_objectives_then_as_policies_came():
    cells = [(c.num_objectives, c.context_policy, c.num_tasks) for c in small().cells]
    assert cells == [
        (1, "full", 1),
        (1, "internal_state", 1),
        (2, "full", 1),
        (2, "internal_state", 1),
    ]


def test_a_cell_counts_how_episodes_ended_and_what_they_are_worth():
    (cell,) = report(
        trajectory(task("Paris", name="a"), bound=30),
        trajectory(task("Paris", name="b"), answer=None, bound=30),
        trajectory(answer=None, stop_reason=StopReason.ENGINE_ERROR, turns=(), bound=30),
        trajectory(
            task("Paris", name="c"), turns=(turn(prompt=5, sampled=2, exact=False),), bound=30
        ),
    ).cells
    assert cell.stop_reasons == {"answered": 2, "max_turns": 1, "engine_error": 1}
    assert (cell.num_tasks, cell.num_trajectories) == (4, 4)
    assert (cell.num_failures, cell.num_inexact) == (1, 1)
    assert (cell.bound, cell.max_tokens) == (30, 10 + 6 + 3)


def test_a_report_reads_back_as_it_was_written(tmp_path):
    written = small()
    write_report(written, tmp_path / "run")
    assert read_report(tmp_path / "run") == written
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"report.json", "report.md", "em.svg", "peak_tokens.svg"}


def test_the_same_trajectories_make_the_same_files(tmp_path):
    for name in ("a", "b"):
        write_report(small(), tmp_path / name)
    files = [{p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("a", "b")]
    assert files[0] == files[1]


def rows(text: str, heading: str) -> list[list[str]]:
    """The body of the Markdown table whose head holds `heading`."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if heading in line and line.startswith("|"))
    body = lines[start + 2 :]
    end = next(i for i, line in enumerate(body) if not line.startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in body[:end]]


def test_the_tables_say_figures_and_whether_the_bound_was_kept():
    text = report_markdown(
        report(
            trajectory(bound=19),
            trajectory(policy="internal_state", bound=18),
            trajectory(policy="window(k=2)"),
        )
    )
    figures = rows(text, "peak w/o prompt")
    assert figures[0] == [
        *("1", "full", "1", "1.00", "1.00", "19", "9", "99", "7", "26", "2.0", "2.5", "1.00"),
        "0.50",
    ]
    ends = [
        ["1", policy, bound, "19", kept, "1.00", "1.00", "answered 1"]
        for policy, bound, kept in (
            ("full", "19", "yes"),
            ("internal_state", "18", "NO"),
            ("window(k=2)", "none", "–"),
        )
    ]
    assert rows(text, "EM strict") == ends


def test_a_mean_over_several_tasks_shows_its_interval():
    same = [trajectory(task("Paris", name=str(i))) for i in range(3)]
    assert rows(report_markdown(report(*same)), "peak w/o prompt")[0][3] == "1.00 [1.00, 1.00]"


@pytest.mark.parametrize(
    ("odd", "note"),
    [
        (trajectory(answer=None, stop_reason=StopReason.ENGINE_ERROR), "1 of 2 episodes failed"),
        (
            trajectory(turns=(turn(prompt=1, sampled=1, exact=False),)),
            "1 of 2 episodes are inexact",
        ),
    ],
)
def test_failed_and_inexact_episodes_are_told(odd, note):
    fine = trajectory(task("Paris", name="fine"))
    assert note in report_markdown(report(fine, odd))
    assert note not in report_markdown(report(fine, fine))


def test_few_tasks_are_told_and_many_are_not():
    many = [trajectory(task("Paris", name=str(i))) for i in range(100)]
    assert "as few as 99 tasks" in report_markdown(report(*many[:99]))
    assert "as few as" not in report_markdown(report(*many))


@pytest.mark.parametrize("text", [None, "{", '{"cells": []}'])
def test_what_is_no_report_is_an_error_that_names_the_file(tmp_path: Path, text):
    if text is not None:
        (tmp_path / "report.json").write_text(text)
    with pytest.raises(DataError, match=r"report\.json: no report"):
        read_report(tmp_path)


def test_a_report_of_another_version_is_refused_with_the_fix(tmp_path):
    write_report(small(), tmp_path)
    path = tmp_path / "report.json"
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 9'))
    with pytest.raises(DataError, match=r"schema_version 9.*mem1 report"):
        read_report(tmp_path)


def test_figures_of_memory_stand_in_a_table_of_their_own_and_missing_ones_are_dashes():
    perfect = episode(
        LOOKUP, ("", "kami"), ("kami 100", "lone"), ("kami 100 lone 101", "=100; 101")
    )
    nothing = episode(question("Paris", "Rome"), ("", "x"), ("", "=x"), context=Full())
    assert rows(report_markdown(report(perfect, nothing)), "half-life") == [
        [
            "2",
            "internal_state",
            "1.00",
            "1.000",
            "∞",
            "0.000",
            "0.000",
            "14.0",
            "14.0",
            "0.00",
            "1.0",
        ],
        ["2", "full", "–", "–", "–", "–", "0.000", "–", "–", "0.00", "0.0"],
    ]


def test_a_mean_over_some_of_the_tasks_only_says_over_how_many():
    held = episode(question("Paris"), ("", "x"), ("Paris", "=x"), pages={"x": "Paris"})
    unseen = episode(question("Paris", name="u"), ("", "x"), ("", "=x"))
    (row,) = rows(report_markdown(report(held, unseen)), "half-life")
    assert (row[2], row[3]) == ("1.00 (1)", "–")
