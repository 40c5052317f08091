"""TASK -> EPISODE -> ROWS: what verl's agent loop workers run for each rollout.

    a row of the training file -> EpisodeLoop.run -> run_episode -> [AgentLoopOutput]

One output for each context, ids and log-probabilities exactly as they were sampled; the reward is
the trajectory's, in each of them.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any
from uuid import uuid4

from verl.experimental.agent_loop.agent_loop import (  # pyright: ignore[reportMissingImports]
    AgentLoopBase,
    AgentLoopMetrics,
    AgentLoopOutput,
    register,
)

from mem1.adapters.verl.data import task_of
from mem1.adapters.verl.engine import ServerEngine
from mem1.adapters.verl.options import AGENT, read_config, window_of
from mem1.chat.hf import HFRenderer
from mem1.config import RunConfig
from mem1.errors import EngineError
from mem1.rollout import run_episode
from mem1.tools import Toolbox
from mem1.train.config import ShapingConfig
from mem1.train.shaping import shaped
from mem1.types import FAILURES, Sampling, Trajectory
from mem1.wiring import plan_jobs
from mem1.worlds import MakeEnv, open_tools, open_world


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What the episodes of a worker share."""

    config: RunConfig
    renderer: HFRenderer
    make_env: MakeEnv
    tools: AbstractAsyncContextManager[Toolbox | None]
    """Of the config; open for as long as this is held."""


@register(AGENT)
class EpisodeLoop(AgentLoopBase):
    """Runs our episode with verl's servers as the engine."""

    async def run(self, sampling_params: dict[str, Any], **row: Any) -> list[AgentLoopOutput]:
        """One episode of the row's task: none, one or several outputs, one for each turn.

        Raises: EngineError if the episode failed, so that verl counts the rollout as failed.
        """
        room = await _room(self.config.mem1.config, self.tokenizer)
        engine = ServerEngine(
            client=self.server_manager,
            renderer=room.renderer,
            window=window_of(room.config),
            settings=sampling_params,
            session=uuid4().hex,
        )
        trajectory = await _play(room, engine=engine, row=row, sampling_params=sampling_params)
        if trajectory.stop_reason in FAILURES:
            raise EngineError(
                f"task {trajectory.task.id!r}, rollout {trajectory.sample}: "
                f"{trajectory.stop_reason}: {trajectory.error}"
            )
        assert room.config.train is not None
        return outputs_of(trajectory, versions=engine.versions, shaping=room.config.train.shaping)


def outputs_of(
    trajectory: Trajectory, *, versions: list[int], shaping: ShapingConfig
) -> list[AgentLoopOutput]:
    """A row for each context of the trajectory, in the order of the turns.

    Args: `versions`, numbers of the weights that sampled each turn.
    """
    told = {
        "min_global_steps": min(versions, default=0),
        "max_global_steps": max(versions, default=0),
        "reward_extra_info": {
            "task_reward": trajectory.reward,
            "turns": trajectory.num_turns,
            **trajectory.reward_parts,
        },
    }
    return [
        AgentLoopOutput(
            prompt_ids=list(turn.prompt_ids),
            response_ids=list(turn.completion.token_ids),
            response_mask=[1] * turn.completion.num_tokens,
            response_logprobs=list(turn.completion.logprobs or ()),
            reward_score=shaped(trajectory, config=shaping),
            num_turns=trajectory.num_turns,
            metrics=AgentLoopMetrics(generate_sequences=turn.engine_s, tool_calls=turn.env_s),
            extra_fields=dict(told),
        )
        for turn in trajectory.turns
    ]


async def _play(
    room: Room,
    *,
    engine: ServerEngine,
    row: Mapping[str, Any],
    sampling_params: Mapping[str, Any],
) -> Trajectory:
    config = replace(
        room.config,
        sampling=Sampling(
            temperature=sampling_params["temperature"], top_p=sampling_params["top_p"]
        ),
        run=replace(room.config.run, samples=1),
    )
    (job,) = plan_jobs(
        config,
        tasks=[task_of(row["extra_info"])],
        engine=engine,
        renderer=room.renderer,
        make_env=room.make_env,
    )
    return await run_episode(
        job.task,
        agent=job.agent,
        env=job.make_env(job.task),
        reward=job.reward,
        sample=int(row.get("session_id", 0)),
    )


@cache
def _room(text: str, tokenizer: Any) -> "asyncio.Task[Room]":
    """The worker's room, opened once and held: verl makes a new loop for every rollout."""
    return asyncio.ensure_future(_open(text, tokenizer))


async def _open(text: str, tokenizer: Any) -> Room:
    config = read_config(text)
    tools = open_tools(config.tools)
    make_env = await asyncio.to_thread(open_world, config, toolbox=await tools.__aenter__())
    return Room(config=config, renderer=HFRenderer(tokenizer), make_env=make_env, tools=tools)
