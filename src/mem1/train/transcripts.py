"""DEMONSTRATIONS IN TEXT -> TRAJECTORIES, played through the real agent loop.

    {"messages": [{"role": "user", "content": "Task: …"},
                  {"role": "assistant", "content": "<think>…</think><search>…</search>"},
                  {"role": "user", "content": "passages"}, {"role": "assistant", "content": "…"}]}

The first user message is the task prompt, each assistant message a turn's reply, the user messages
between them what the world said. The run's context policy decides what each turn sees, so one
transcript teaches any policy. A line may have an `id` and a `reward`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from mem1.chat import Renderer
from mem1.context import Budget, ContextPolicy
from mem1.engines import Engine, Request, ScriptedEngine
from mem1.envs.base import Observation
from mem1.errors import DataError
from mem1.files import read_lines
from mem1.rewards import RewardOutput
from mem1.rollout import Agent, Job, collect
from mem1.text import ANSWER_TAG, STATE_TAG
from mem1.types import FAILURES, Action, Completion, Fault, Objective, Task, Trajectory, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """One demonstration."""

    id: str
    prompt: str
    replies: tuple[str, ...]
    observations: tuple[str, ...]
    """One between two replies."""
    reward: float = 1.0


def read_transcripts(path: Path) -> list[Transcript]:
    """All demonstrations of a file. Raises: DataError naming the line that is none."""
    found: list[Transcript] = []
    for number, line in read_lines(path):
        try:
            record = orjson.loads(line)
            found.append(_transcript(record, default_id=f"{path.stem}-{number}"))
        except (ValueError, LookupError, TypeError) as error:
            raise DataError(f"{path}:{number}: not a transcript: {error}") from error
    return found


def _transcript(record: dict[str, Any], *, default_id: str) -> Transcript:
    messages = record["messages"]
    roles = [message["role"] for message in messages]
    if roles != ["user", "assistant"] * (len(roles) // 2) or not roles:
        raise ValueError(f"roles are {roles}: user and assistant in turn, assistant last, please")
    contents = [message["content"] for message in messages]
    if not all(isinstance(content, str) for content in contents):
        raise TypeError("a content is no text: join its parts to one string")
    return Transcript(
        id=str(record.get("id", default_id)),
        prompt=contents[0],
        replies=tuple(contents[1::2]),
        observations=tuple(contents[2::2]),
        reward=float(record.get("reward", 1.0)),
    )


async def played(
    transcripts: Sequence[Transcript], *, renderer: Renderer, context: ContextPolicy, budget: Budget
) -> list[Trajectory]:
    """The trajectories these transcripts make under a context policy.

    Raises: DataError for one with a reply that isn't played whole: its action's closing tag isn't
    at its end, or it's over the budget.
    """
    jobs = [
        Job(
            task=Task(
                id=transcript.id,
                objectives=(Objective(question=transcript.prompt, answers=()),),
                source="transcripts",
            ),
            agent=Agent(
                engine=Teller(ScriptedEngine(transcript.replies, codec=renderer)),
                renderer=renderer,
                context=context,
                budget=budget,
                max_turns=len(transcript.replies),
            ),
            make_env=_Replay(transcript),
            reward=_Given(transcript.reward),
        )
        for transcript in transcripts
    ]
    trajectories = await collect(jobs)
    for transcript, trajectory in zip(transcripts, trajectories, strict=True):
        said = [turn.completion.text.strip() for turn in trajectory.turns]
        told = [reply.strip() if _action(reply) else None for reply in transcript.replies]
        if trajectory.stop_reason in FAILURES or said != told:
            pairs = enumerate(zip(said, told, strict=False), start=1)
            wrong = next((number for number, (a, b) in pairs if a != b), len(said) + 1)
            raise DataError(
                f"transcript {transcript.id}: reply {wrong} can't be played as it is: end it with "
                "its action's closing tag, or raise the budget"
                f"{f': {trajectory.error}' if trajectory.error else ''}"
            )
    return trajectories


@dataclass(frozen=True, slots=True)
class Teller:
    """An engine that plays a script and has no probabilities to tell."""

    script: Engine

    @property
    def window(self) -> int | None:
        return None

    async def complete(self, request: Request) -> Completion:
        return replace(await self.script.complete(request), logprobs=None)

    async def close(self) -> None:
        await self.script.close()


def _action(reply: str) -> str | None:
    """Name of the action that a reply ends with; None if it ends with none."""
    end = re.search(r"</(\w+)>\s*\Z", reply)
    return end[1] if end and end[1] != STATE_TAG else None


@dataclass(slots=True)
class _Replay:
    """The world of a transcript: it says what it said then."""

    transcript: Transcript
    _turn: int = field(default=0)

    def __call__(self, task: Task) -> "_Replay":
        return _Replay(self.transcript)

    @property
    def actions(self) -> tuple[str, ...]:
        names = [_action(reply) for reply in self.transcript.replies]
        return tuple(dict.fromkeys([*filter(None, names), ANSWER_TAG]))

    async def start(self, *, max_turns: int, state_tokens: int) -> str:
        return self.transcript.prompt

    async def step(self, action: Action | None, *, faults: tuple[Fault, ...]) -> Observation:
        self._turn += 1
        if self._turn > len(self.transcript.observations):
            return Observation(text="", done=True)
        return Observation(text=self.transcript.observations[self._turn - 1])

    async def close(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class _Given:
    """The reward that the transcript states."""

    reward: float

    def __call__(self, task: Task, *, answer: str | None, turns: Sequence[Turn]) -> RewardOutput:
        return RewardOutput(total=self.reward, parts={})
