"""The examples do what they say."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from mem1.config import parse_policy
from mem1.types import StopReason

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_examples_are_short():
    assert {p.name for p in EXAMPLES.glob("*.py") if len(p.read_text().splitlines()) > 80} == set()


def test_quickstart_prints_turns_and_the_answer(config, capsys):
    trajectory = load("quickstart").main("Capital of France?", config_file=config)
    shown = capsys.readouterr().out
    assert trajectory.stop_reason is StopReason.ANSWERED
    assert f"bound {trajectory.bound}" in shown
    assert shown.endswith("answer: Paris\n")


def test_custom_tool_answers_with_what_the_tool_said():
    trajectory = load("custom_tool").main()
    observations = [turn.observation for turn in trajectory.turns]
    assert observations == [
        "\n<information>17 * 23 = 391</information>\n",
        "\n<information>391 + 9 = 400</information>\n",
        None,
    ]
    assert trajectory.reward == 1.0


@pytest.mark.parametrize("k", [1, 2, 4])
def test_custom_context_stays_within_its_bound(k):
    trajectory = load("custom_context").main(k)
    sizes = [len(turn.prompt_ids) + turn.completion.num_tokens for turn in trajectory.turns]
    assert trajectory.bound == 200 + 100 + 60 + k * 150 + 160
    assert max(sizes) <= trajectory.bound
    kept = [s.turn for s in trajectory.turns[-1].context if s.kind == "observation"]
    assert kept == [1, 2, 3, 4][-k:]


def test_custom_context_can_be_named_in_a_config(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    policy = parse_policy("custom_context:RecentObservations(k=3)")
    assert str(policy) == "recent_observations(k=3)"
