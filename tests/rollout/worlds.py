"""A small world for rollout tests: one question, a tool that says what it's told."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from mem1.chat import ByteRenderer
from mem1.context import Budget, ContextPolicy, InternalState
from mem1.engines import Engine, Request, ScriptedEngine
from mem1.envs import Env
from mem1.envs.qa import QAEnv
from mem1.rewards import ExactMatchReward, Reward
from mem1.rollout import Agent, run_episode
from mem1.types import Objective, Task, Trajectory

PROMPT = "Question: {question}"
BUDGET = Budget(prompt=200, internal_state=120, action=60, observation=200)
TASK = Task(id="t", objectives=(Objective(question="Capital of France?", answers=("Paris",)),))


@dataclass(frozen=True, slots=True, kw_only=True)
class Says:
    """A tool that answers with a function of its argument."""

    reply: Callable[[str], str]
    name: str = "search"

    async def call(self, argument: str) -> str:
        return self.reply(argument)


def agent(
    engine: Engine,
    *,
    context: ContextPolicy | None = None,
    max_turns: int = 6,
    budget: Budget = BUDGET,
) -> Agent:
    return Agent(
        engine=engine,
        renderer=ByteRenderer(),
        context=context or InternalState(),
        budget=budget,
        max_turns=max_turns,
    )


def env(task: Task = TASK, *, reply: Callable[[str], str] = lambda argument: f"about {argument}"):
    return QAEnv(task, tools=[Says(reply=reply)], prompt=PROMPT)


def scripted(*replies: str | Exception, window: int | None = None) -> ScriptedEngine:
    return ScriptedEngine(replies, codec=ByteRenderer(), window=window)


def play(
    engine: Engine,
    *,
    world: Env | None = None,
    task: Task = TASK,
    reward: Reward | None = None,
    **settings,
) -> Trajectory:
    return asyncio.run(
        run_episode(
            task,
            agent=agent(engine, **settings),
            env=world or env(),
            reward=reward or ExactMatchReward(),
        )
    )


def state(text: str) -> str:
    return f"<think>{text}</think>"


def search(text: str, argument: str = "x") -> str:
    return f"{state(text)}\n<search>{argument}</search>"


def answer(text: str, argument: str = "Paris") -> str:
    return f"{state(text)}\n<answer>{argument}</answer>"


def always(reply: str) -> Callable[[Request], str]:
    return lambda _request: reply
