"""Decide yourself what the model sees next: a policy is two pure functions.

    python examples/custom_context.py

This one keeps the internal state like MEM1, and the last `k` observations instead of one. In a
config it's named by its dotted path, with this folder on PYTHONPATH:

    [context]
    policies = ["internal_state", "custom_context:RecentObservations(k=3)"]
"""

import asyncio
from dataclasses import dataclass

from mem1 import Agent, Budget, Objective, Task, Trajectory, run_episode
from mem1.chat import ByteRenderer
from mem1.context import Parts
from mem1.engines import ScriptedEngine
from mem1.envs import QAEnv
from mem1.rewards import ExactMatchReward
from mem1.types import Context, SegmentKind


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentObservations:
    """Keeps: prompt · last k observations · last internal state · last action · hint."""

    k: int = 2

    def bound(self, budget: Budget) -> int:
        kept = budget.internal_state + budget.action + self.k * budget.observation
        return budget.prompt + kept + budget.reply

    def update(self, context: Context, parts: Parts) -> Context:
        seen = [s for s in context if s.kind is SegmentKind.OBSERVATION]
        kept = [s for s in context if s.kind is SegmentKind.INTERNAL_STATE]
        state = [parts.internal_state] if parts.internal_state else kept
        action = [parts.action] if parts.action else []
        recent = [*seen, parts.observation][-self.k :]
        return (context[0], *recent, *state, *action, parts.hint)

    def __str__(self) -> str:
        return f"recent_observations(k={self.k})"


class Clock:
    name = "look"

    async def call(self, argument: str) -> str:
        return f"The {argument} stands at noon."


def main(k: int = 2) -> Trajectory:
    looks = [f"<think>I saw {i} clocks.</think><look>clock {i}</look>" for i in range(4)]
    renderer = ByteRenderer()
    task = Task(id="time", objectives=(Objective(question="What time is it?", answers=("noon",)),))
    agent = Agent(
        engine=ScriptedEngine(
            [*looks, "<think>All agree.</think><answer>noon</answer>"], codec=renderer
        ),
        renderer=renderer,
        context=RecentObservations(k=k),
        budget=Budget(prompt=200, internal_state=100, action=60, observation=150),
    )
    env = QAEnv(task, tools=[Clock()], prompt="Use <look> and <answer>. {question}")
    return asyncio.run(run_episode(task, agent=agent, env=env, reward=ExactMatchReward()))


if __name__ == "__main__":
    trajectory = main()
    for number, turn in enumerate(trajectory.turns, start=1):
        kinds = " · ".join(f"{s.kind}{s.turn or ''}" for s in turn.context)
        print(f"turn {number}: {len(turn.prompt_ids)} tokens (bound {trajectory.bound}): {kinds}")
