"""Give the agent a tool of your own: anything with a name and an async `call`.

    python examples/custom_tool.py

A scripted engine stands in for the model, so that this runs anywhere; pass another Engine and its
Renderer to `main` to see a real model use the tool.
"""

import ast
import asyncio
import operator

from mem1 import Agent, Budget, InternalState, Objective, Task, Trajectory, run_episode
from mem1.chat import ByteRenderer, Renderer
from mem1.engines import Engine, ScriptedEngine
from mem1.envs import QAEnv
from mem1.errors import ToolError
from mem1.rewards import ExactMatchReward

OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


class Calculator:
    """The agent calls it by writing `<calculate>17 * 23</calculate>`."""

    name = "calculate"

    async def call(self, argument: str) -> str:
        # A wrong sum is the model's mistake and gets an answer it can learn from. A ToolError
        # would say that the tool itself is broken, and end the episode.
        try:
            return f"{argument} = {evaluate(ast.parse(argument, mode='eval').body)}"
        except (SyntaxError, ValueError, ZeroDivisionError) as error:
            return f"can't calculate {argument!r}: {error}"
        except RecursionError as error:
            raise ToolError(str(error)) from error


def evaluate(node: ast.expr) -> float:
    """The value of + - * / over numbers; nothing else is evaluated."""
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return OPERATORS[type(op)](evaluate(left), evaluate(right))
    raise ValueError("only numbers and + - * /")


SCRIPT = [
    "<think>17 * 23 comes first.</think>\n<calculate>17 * 23</calculate>",
    "<think>17 * 23 = 391. Now add 9.</think>\n<calculate>391 + 9</calculate>",
    "<think>391 + 9 = 400.</think>\n<answer>400</answer>",
]


def main(engine: Engine | None = None, renderer: Renderer | None = None) -> Trajectory:
    renderer = renderer or ByteRenderer()
    task = Task(id="sum", objectives=(Objective(question="17 * 23 + 9?", answers=("400",)),))
    agent = Agent(
        engine=engine or ScriptedEngine(SCRIPT, codec=renderer),
        renderer=renderer,
        context=InternalState(),
        budget=Budget(),
    )
    env = QAEnv(task, tools=[Calculator()], prompt="Use <calculate> and <answer>. {question}")
    return asyncio.run(run_episode(task, agent=agent, env=env, reward=ExactMatchReward()))


if __name__ == "__main__":
    trajectory = main()
    for turn in trajectory.turns:
        print(turn.completion.text, (turn.observation or "").strip(), sep="\n", end="\n\n")
    print("reward:", trajectory.reward)
