"""A package of somebody else's gives tasks, a world, a tool, a reward and a context policy."""

import json
from pathlib import Path

import pytest
from chat_server import chat_server

from mem1.cli import run_command

THEIRS = """
from dataclasses import dataclass
from mem1.context import Window
from mem1.envs import QAEnv
from mem1.rewards import RewardOutput
from mem1.types import Objective, Task

def sums(count):
    return [
        Task(id=f"sum-{n}", objectives=(Objective(question=f"{n} + 1?", answers=("?",)),))
        for n in range(count)
    ]

@dataclass(frozen=True, kw_only=True)
class Shout:
    mark: str = "!"
    name = "shout"
    description = "Says it loudly."
    parameters = {"type": "object", "properties": {"text": {"type": "string"}}}

    async def run(self, arguments):
        return arguments["text"].upper() + self.mark

def world(task):
    return QAEnv(task, prompt="Theirs: {question}")

@dataclass(frozen=True, kw_only=True)
class Length:
    factor: int = 1

    def __call__(self, task, *, answer, turns):
        return RewardOutput(total=float(self.factor * len(answer or "")), parts={})

Brief = Window
"""
POINTS = """[mem1]
their-sums = theirs:sums
their-world = theirs:world
their-shout = theirs:Shout
their-length = theirs:Length
their-brief = theirs:Brief
"""
CONFIG = """
[engine]
kind = "openai"
base_url = "{url}"
model = "parrot"
mode = "chat"
[budget]
prompt = 2000
internal_state = 200
action = 120
observation = 300
[context]
policies = ["{brief}(k = 3)"]
[tasks]
kind = "custom"
tasks = "{sums}"
settings = {{ count = 1 }}
{world}
[tools]
functions = {tools}
[run]
reward = "{length}(factor = 10)"
"""
PATHS = ("theirs:Brief", "theirs:sums", "theirs:world", "theirs:Shout", "theirs:Length")
NAMES = ("their-brief", "their-sums", "their-world", "their-shout", "their-length")


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """The package, installed as `importlib.metadata` sees it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    info = tmp_path / "theirs-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (info / "entry_points.txt").write_text(POINTS)
    (tmp_path / "theirs.py").write_text(THEIRS)


def rolled_out(parts: tuple[str, ...], *, own_world: bool) -> tuple[dict, str]:
    """A trajectory, and the prompt that the model saw. With a world of its own there's no tool."""

    def reply(messages: list[dict[str, str]]) -> str:
        if own_world or len(messages) > 1:
            return "<think>-</think><answer>two</answer>"
        return '<think>-</think><tool name="shout">{"text": "one"}</tool>'

    brief, sums, world, shout, length = parts
    with chat_server(reply) as server:
        said = {"url": server.url, "brief": brief, "sums": sums, "length": length}
        said["world"] = f'env = "{world}"' if own_world else ""
        said["tools"] = "[]" if own_world else f"""["{shout}(mark = '?')"]"""
        Path("run.toml").write_text(CONFIG.format(**said))
        assert run_command(["rollout", "run.toml", "--out", "found"]) == 0
    (line,) = Path("found/trajectories.jsonl").read_text().splitlines()
    return json.loads(line), server.chats[0][0]["content"]


@pytest.mark.parametrize("parts", [PATHS, NAMES], ids=["path", "entry point"])
def test_tasks_a_tool_a_reward_and_a_policy_of_others_make_a_run(theirs, parts):
    found, prompt = rolled_out(parts, own_world=False)
    assert "shout: Says it loudly." in prompt
    assert "<information>ONE?</information>" in found["turns"][0]["observation"]
    assert (found["task"]["id"], found["answer"], found["reward"]) == ("sum-0", "two", 30.0)
    assert found["context_policy"] == "window(k=3)"


@pytest.mark.parametrize("parts", [PATHS, NAMES], ids=["path", "entry point"])
def test_a_world_of_others_is_played_in(theirs, parts):
    found, prompt = rolled_out(parts, own_world=True)
    assert (prompt, len(found["turns"]), found["answer"]) == ("Theirs: 0 + 1?", 1, "two")
