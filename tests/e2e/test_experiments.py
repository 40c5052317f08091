"""benchmarks/experiments.py: what its trials do to a config and a batch, and what its page says."""

import re

import pytest

pytest.importorskip("transformers")

from episodes import make_trajectory
from experiments import PAGE, RESULTS, of_training, trained, with_results
from results import cell, over_seeds, tables
from rewrites import alone, plain, shuffled, stitched
from trials import EXPERIMENTS, TRIALS, Experiment, Trial, config_of, settings

from mem1.context import Full, InternalState
from mem1.packing import pack
from mem1.train.logbook import METRICS_FILE, read_metrics
from mem1.train.trainer import POLICY
from mem1.training import check_trainable, run_levels
from mem1.types import Trajectory, context_ids

PARTS = {
    "prompt": [1, 2],
    "replies": [([3, 4], [5]), ([6, 7], [8]), ([9], [10])],
    "observations": [[11, 12], [13]],
}


def episode() -> Trajectory:
    return make_trajectory(InternalState(), **PARTS)


@pytest.mark.parametrize("name", TRIALS)
def test_every_trial_is_a_config_that_trains(name):
    config = config_of(TRIALS[name], seed=3)
    train, _ = check_trainable(config)
    assert (train.seed, config.sampling.seed) == (3, 3)
    assert len(run_levels(config, train)) == (3 if train.curriculum else 1)


def test_plain_rows_are_those_of_an_agent_that_forgets_nothing():
    (seen,) = plain([episode()])
    whole = make_trajectory(Full(), **PARTS)
    assert [context_ids(t.context) for t in seen.turns] == [
        context_ids(t.context) for t in whole.turns
    ]


def test_stitched_rows_hold_each_token_once():
    (row,) = pack(stitched([episode()]), row_tokens=100)
    assert sorted(row.token_ids.tolist()) == list(range(1, 14))


def test_alone_only_the_last_turn_is_rewarded():
    found = alone([episode()])
    assert [(len(t.turns), t.sample, t.reward) for t in found] == [
        (1, 1, 0.0),
        (1, 2, 0.0),
        (1, 3, 1.0),
    ]


def test_shuffled_rewards_are_the_same_ones():
    batch = [make_trajectory(InternalState(), **PARTS, sample=n) for n in range(8)]
    given = alone(batch)
    found = [t.reward for t in shuffled(given)]
    assert sorted(found) == sorted(t.reward for t in given)
    assert found != [t.reward for t in given]


def test_a_trial_ends_when_its_tokens_are_spent_and_so_does_one_that_goes_on(tmp_path):
    few = settings(steps=6, batch_size=8, save_every=2)
    trial = Trial(changes=(few,), most_tokens=300)
    first = trained(trial, seed=0, folder=tmp_path)
    steps = list(read_metrics(tmp_path / METRICS_FILE))
    weights = (first / "model.safetensors").read_bytes()
    assert first == tmp_path / POLICY
    assert 1 < len(steps) < 6
    assert abs(of_training(steps)["reply_tokens"] - 300) <= steps[-1]["generated_tokens"]
    again = trained(trial, seed=0, folder=tmp_path)
    assert (again / "model.safetensors").read_bytes() == weights
    assert list(read_metrics(tmp_path / METRICS_FILE)) == steps


def test_three_seeds_have_students_interval():
    mean, half = over_seeds([0.0, 1.0, 2.0])
    assert (mean, round(half, 3)) == (1.0, 2.484)  # 4.303 / sqrt(3)


def test_a_cell_says_how_many_seeds_have_a_figure():
    found = [{"held_8": 0.5}, {"held_8": 0.5, "survival_8": 0.5}]
    assert cell(found, "held_8") == "0.500 ± 0.000"
    assert cell(found, "survival_8") == "0.500 (1)"
    assert cell(found, "half_life_8") == "1.0 (1)"
    assert cell(found, "em_8") == "–"


def test_a_table_has_a_line_for_each_trial_and_size():
    asked = Experiment(trials=("PPO",), columns=("em_1",), sized=("em",))
    text = tables(asked, figures={"PPO": [{"em_1": 0.5, "em_16": 0.25}]}, seeds=[0], start="s")
    assert [line for line in text.splitlines() if "PPO" in line] == [
        "| PPO | 0.500 |",
        "| 1 | PPO | 0.500 |",
        *[f"| {size} | PPO | – |" for size in (2, 4, 8)],
        "| 16 | PPO | 0.250 |",
    ]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_page_shows_what_was_found(name):
    page, file = PAGE.read_text("utf-8"), RESULTS / name / "table.md"
    known = file.read_text("utf-8") if file.exists() else "Not run yet."
    assert with_results(page, name=name, text=known) == page
    assert set(EXPERIMENTS[name].trials) <= set(TRIALS)


def test_every_measured_number_of_the_page_was_found():
    text = re.sub(r"`[^`]*`", "", PAGE.read_text("utf-8"))
    lines = text.splitlines()
    prose = "\n".join(line for line in lines if not line.startswith("|"))
    files = [RESULTS / "leak.json", RESULTS / "horizon/horizon.md", *RESULTS.glob("*/table.md")]
    found = {number for path in files for number in re.findall(r"\d+\.\d+", path.read_text())}
    assert set(re.findall(r"\d+\.\d+", prose)) <= found
