"""What becomes of agents as N grows: figures per objective, controls, the paper beside them."""

import json

import pytest
from made import task, trajectory
from remembered import LOOKUP, episode

from mem1.context import ClosedBook
from mem1.evals import HorizonReport, build_horizon, write_horizon
from mem1.evals.horizon import HalfLife, horizon_markdown
from mem1.types import Task, Trajectory


def of_source(source: str, *golds: str, name: str = "t") -> Task:
    asked = task(*golds, name=name)
    return Task(id=name, objectives=asked.objectives, source=source)


def horizon(**runs: list[Trajectory]) -> HorizonReport:
    return build_horizon(runs.items(), command="mem1 report --horizon a b")


FOUND = [("", "kami"), ("kami 100", "lone"), ("kami 100", "x"), ("kami 100 lone 101", "=100; 101")]
LOSES = [("", "kami"), ("kami 100", "lone"), ("lone 101", "kami"), ("lone 101", "=unknown; 101")]


def test_runs_stand_as_they_came_then_policies_then_n():
    two, one = task("Paris", "Rome", name="two"), task("Paris")
    made = [trajectory(two), trajectory(one, policy="window(k=2)"), trajectory(one)]
    cells = horizon(b=made, a=made[1:2]).cells
    assert [(c.run, c.cell.context_policy, c.cell.num_objectives) for c in cells] == [
        ("b", "full", 1),
        ("b", "full", 2),
        ("b", "window(k=2)", 1),
        ("a", "window(k=2)", 1),
    ]


def test_scores_are_divided_by_n_with_their_intervals():
    halves = [
        trajectory(task("Paris", "Rome", name=str(i)), answer="Paris; Rome" if i % 2 else "x; y; z")
        for i in range(20)
    ]
    (cell,) = horizon(a=halves).cells
    whole, each = cell.cell.estimates["em"], cell.per_objective["em"]
    assert (each.mean, each.low, each.high) == (0.5, whole.low / 2, whole.high / 2)
    assert cell.per_objective["em_strict"].mean == 0.5


def test_half_life_follows_from_survival_and_none_lost_is_no_number():
    held, lost = (horizon(a=[episode(LOOKUP, *said)]).cells[0] for said in (FOUND, LOSES))
    assert held.half_life == HalfLife(turns=None, low=None, high=None)
    # Of kami at turn 2 and lone at turn 3, lone is held a turn later.
    assert lost.half_life == HalfLife(turns=1.0, low=None, high=None)
    assert [e.mean for e in lost.survival_by_age] == [1.0, 0.5, 0.0]


def test_where_nothing_was_held_there_is_no_half_life():
    (cell,) = horizon(a=[trajectory()]).cells
    assert (cell.half_life, cell.survival_by_age) == (None, ())
    assert "| a | full | 1 | – | – | – |" in horizon_markdown(horizon(a=[trajectory()]))


def test_the_closed_book_says_what_can_be_guessed_or_that_nobody_knows():
    guessed = episode(LOOKUP, ("kami 100", "=100; x"), context=ClosedBook())
    text = horizon_markdown(horizon(blind=[guessed], other=[trajectory()]))
    assert "- blind: 0.500 at N = 2\n- other: not known, no closed_book" in text


@pytest.mark.parametrize(
    ("source", "golds", "is_theirs"),
    [
        ("hotpotqa+nq", ("a", "b"), True),
        ("nq", ("a", "b"), True),
        ("nq", ("a",), False),
        ("nq+mine", ("a", "b"), False),
        ("", ("a", "b"), False),
    ],
)
def test_the_papers_figures_stand_beside_the_papers_tasks_only(source, golds, is_theirs):
    report = horizon(a=[trajectory(of_source(source, *golds))])
    text = horizon_markdown(report)
    assert ("The paper's figures, not ours" in text) == bool(report.paper) == is_theirs
    assert ("| 16 | MEM1-QA 7B | 1.970 | 0.123 | 0.149 | 1,040 | 8.7 |" in text) == is_theirs


def test_a_run_with_other_tasks_among_them_is_not_like_the_papers():
    mixed = [trajectory(of_source(source, "a", "b", name=source)) for source in ("nq", "mine")]
    assert horizon(a=mixed).paper == ()


def test_it_is_written_as_json_tables_and_a_figure_the_same_each_time(tmp_path):
    report = horizon(
        a=[episode(LOOKUP, *LOSES), trajectory(of_source("nq", "a", "b"))], b=[trajectory()]
    )
    for name in ("one", "two"):
        write_horizon(report, tmp_path / name)
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("one", "two"))
    assert one == two
    assert set(one) == {"horizon.json", "horizon.md", "horizon.svg"}
    found = json.loads(one["horizon.json"])
    assert [cell["run"] for cell in found["cells"]] == ["a", "a", "b"]
    assert found["cells"][0]["half_life"] == {"turns": 1.0, "low": None, "high": None}
    assert found["schema_version"] == 1
