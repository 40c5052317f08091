"""What is learned from besides the reward: pure, and never stored."""

from dataclasses import replace

import numpy as np
import pytest
from remembered import LOOKUP, UPDATE, episode, ledger, question

from mem1.errors import ConfigError
from mem1.train.config import LossConfig, ShapingConfig
from mem1.train.shaping import facts_held, shaped

SUM = ledger(
    "sum kami lone",
    pages={"kami": "found kami 100", "lone": "found lone 101"},
    memory=[{}, {"kami": "100"}, {"kami": "101"}],
)
KAMI, LONE = ("", "kami"), ("kami 100", "lone")


@pytest.mark.parametrize(
    ("task", "turns", "share"),
    [
        (LOOKUP, [KAMI, LONE, ("kami 100 lone 101", "=100; 101")], 1.0),
        (LOOKUP, [KAMI, LONE, ("kami 100 lone 101", "")], 1.0),
        (LOOKUP, [KAMI, LONE, ("lone 101", "=100; 101")], 0.5),
        (LOOKUP, [KAMI, LONE, ("kami 100 lone 105", "=100; 105")], 0.5),
        (LOOKUP, [("kami 100 lone 101", "=100; 101")], 0.0),
        (UPDATE, [KAMI, LONE, ("kami 107 lone 101", "=107; 101")], 1.0),
        (UPDATE, [KAMI, LONE, ("kami 100 lone 101", "=100; 101")], 0.5),
        (UPDATE, [KAMI, ("kami 100", "=100; 101")], 0.0),
        (SUM, [KAMI, ("kami 100", "lone"), ("kami 101", "=101")], 1.0),
        (SUM, [KAMI, ("kami 100", "lone"), ("kami 100 lone 101", "=101")], 0.0),
        (question("Paris", "Rome"), [("", "x"), ("It is Paris.", "=a; b")], 0.0),
        (LOOKUP, [], 0.0),
        (question(), [("a", "=b")], 0.0),
    ],
)
def test_facts_held_are_seen_right_and_up_to_date_at_the_end(task, turns, share):
    assert facts_held(episode(task, *turns)) == share


def test_an_answer_that_a_passage_told_counts_as_a_fact():
    pages = {"x": "Paris is a city."}
    told = episode(question("Paris", "Rome"), ("", "x"), ("It is Paris.", "=a; b"), pages=pages)
    assert facts_held(told) == 0.5


def test_the_reward_loses_by_length_and_gains_by_what_is_held():
    # Six sampled tokens, one of two facts held.
    played = replace(episode(LOOKUP, KAMI, LONE, ("lone 101", "=5; 101")), reward=1.0)
    assert shaped(played, config=ShapingConfig()) == 1.0
    assert shaped(played, config=ShapingConfig(length_penalty=50.0)) == pytest.approx(0.7)
    assert shaped(played, config=ShapingConfig(process_reward=0.4)) == pytest.approx(1.2)
    both = ShapingConfig(length_penalty=50.0, process_reward=0.4)
    assert shaped(played, config=both) == pytest.approx(0.9)


@pytest.mark.parametrize("name", ["length_penalty", "process_reward"])
def test_a_negative_weight_is_refused(name):
    with pytest.raises(ConfigError, match=rf"train.shaping.{name} = -0.1: give 0 or more"):
        ShapingConfig(**{name: -0.1})


def test_advantages_are_those_of_what_is_learned_from_and_the_record_keeps_its_reward(tiny):
    pytest.importorskip("torch")
    from ledger_runs import groups, tiny_policy, train_config

    from mem1.train.experience import gather

    plain = train_config("rloo", loss=LossConfig())
    config = replace(plain, shaping=ShapingConfig(length_penalty=100.0))
    trajectories, policy = groups(2), tiny_policy(tiny, plain)
    before = [trajectory.reward for trajectory in trajectories]
    found = gather(trajectories, policy=policy, config=config)
    lengths = np.bincount(found.tokens.trajectory)
    assert found.rewards_B == pytest.approx(np.array(before) - lengths / 10)
    other = [replace(t, reward=r) for t, r in zip(trajectories, found.rewards_B, strict=True)]
    same = gather(other, policy=policy, config=plain)
    assert found.advantages_T == pytest.approx(same.advantages_T)
    assert [trajectory.reward for trajectory in trajectories] == before


def test_a_run_tells_both_rewards_and_stores_the_tasks_own(tiny, tmp_path):
    pytest.importorskip("torch")
    from ledger_runs import figures, run_config, train_run

    from mem1.rollout.store import read_trajectories

    shaping = ShapingConfig(length_penalty=100.0)
    train_run(run_config(tiny, "grpo", shaping=shaping, steps=1), tmp_path)
    (line,) = figures(tmp_path)
    stored = list(read_trajectories(tmp_path / "rollouts" / "step-000001.jsonl"))
    own = np.mean([trajectory.reward for trajectory in stored])
    assert line["reward"] == pytest.approx(own)
    lost = 100.0 * line["generated_tokens"] / 1000 / len(stored)
    assert line["shaped_reward"] == pytest.approx(own - lost)
