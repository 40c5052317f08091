"""TASK -> TRAJECTORY: the agent loop, on one screen.

    prompt -> context -> engine -> reply -> env -> observation -> context policy -> context -> …

Whatever happens, an episode ends in a Trajectory that says why (`StopReason`).
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from mem1.carry import Tape
from mem1.chat import (
    Renderer,
    ReplyParts,
    context_messages,
    observation_segment,
    split_reply,
    text_segment,
)
from mem1.context import Budget, ContextPolicy, Parts, TaskPolicy, check_window
from mem1.engines import Carry, Engine, Request, carrying
from mem1.envs import Env, Observation
from mem1.errors import EngineError, ToolError, UserError
from mem1.rewards import Reward, RewardOutput
from mem1.text import ANSWER_TAG, HINT_TAG, close_tag
from mem1.types import (
    Action,
    Context,
    Message,
    Sampling,
    SamplingMode,
    Segment,
    SegmentKind,
    StopReason,
    Task,
    Trajectory,
    Turn,
    context_ids,
    num_tokens,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """Everything about an agent that does not change between episodes.

    Raises: ConfigError for mode `carry` with an engine that can't.
    """

    engine: Engine
    renderer: Renderer
    context: ContextPolicy
    budget: Budget
    sampling: Sampling = field(default_factory=Sampling)
    max_turns: int = 6
    mode: SamplingMode = "reencode"

    def __post_init__(self) -> None:
        if self.mode == "carry":
            carrying(self.engine)

    def bound(self) -> int | None:
        """Certified largest context + reply, in tokens; BudgetError if the window is smaller."""
        return check_window(self.context, budget=self.budget, window=self.engine.window)

    def for_task(self, task: Task) -> "Agent":
        """The agent of one task: itself, unless each task has a context policy of its own."""
        if not isinstance(self.context, TaskPolicy):
            return self
        policy = self.context.of(task, renderer=self.renderer, budget=self.budget)
        return replace(self, context=policy)


@dataclass(slots=True, kw_only=True)
class _Episode:
    """What is known of an episode while it runs."""

    agent: Agent
    env: Env
    bound: int | None
    seed: str
    tape: Tape | None
    """All that the model has computed, if each token is computed once."""
    turns: list[Turn] = field(default_factory=list[Turn])
    stop_reason: StopReason = StopReason.MAX_TURNS
    answer: str | None = None
    error: str | None = None


async def run_episode(
    task: Task,
    *,
    agent: Agent,
    env: Env,
    reward: Reward,
    sample: int = 0,
    on_turn: Callable[[Turn], None] | None = None,
) -> Trajectory:
    """Let an agent work on a task until it answers, the world ends it, or the turns are used up.

    Args: `env`, fresh, of this task; `sample`, which rollout of the task this is; `on_turn`, called
    after every turn. Raises BudgetError if the caps don't fit the model's window.
    """
    episode = _Episode(
        agent=agent,
        env=env,
        bound=agent.bound(),
        seed=f"{agent.sampling.seed}/{task.id}/{sample}",
        tape=Tape() if agent.mode == "carry" else None,
    )
    started = time.perf_counter()
    try:
        await _play(episode, on_turn=on_turn)
    except UserError:
        raise
    except EngineError as error:
        episode.stop_reason, episode.error = StopReason.ENGINE_ERROR, str(error)
    except ToolError as error:
        episode.stop_reason, episode.error = StopReason.TOOL_ERROR, str(error)
    except Exception as error:  # noqa: BLE001 - the episode boundary
        episode.stop_reason, episode.error = StopReason.EPISODE_ERROR, repr(error)
    finally:
        if episode.tape:
            carrying(agent.engine).release(episode.tape)
        await env.close()
    score = _score(reward, task, episode=episode)
    return Trajectory(
        task=task,
        sample=sample,
        context_policy=str(agent.context),
        turns=tuple(episode.turns),
        stop_reason=episode.stop_reason,
        answer=episode.answer,
        reward=score.total,
        reward_parts=score.parts,
        bound=episode.bound,
        seconds=time.perf_counter() - started,
        mode=agent.mode,
        error=episode.error,
    )


def _score(reward: Reward, task: Task, *, episode: _Episode) -> RewardOutput:
    """What the episode earned; one whose reward can't be told counts as failed."""
    try:
        return reward(task, answer=episode.answer, turns=episode.turns)
    except Exception as error:  # noqa: BLE001 - the episode boundary
        episode.stop_reason, episode.error = StopReason.EPISODE_ERROR, f"reward: {error!r}"
        return RewardOutput(total=0.0, parts={})


async def _play(episode: _Episode, *, on_turn: Callable[[Turn], None] | None) -> None:
    agent, env = episode.agent, episode.env
    text = await env.start(max_turns=agent.max_turns, state_tokens=agent.budget.internal_state)
    prompt = _prompt(text, renderer=agent.renderer)
    if len(prompt.token_ids) > agent.budget.prompt:
        episode.stop_reason = StopReason.PROMPT_TOO_LONG
        return
    context: Context = (prompt,)
    for turn in range(1, agent.max_turns + 1):
        most = num_tokens(context) + agent.budget.reply
        assert episode.bound is None or most <= episode.bound, "the budget promise is broken"
        request = _request(context, episode=episode, turn=turn)
        if agent.engine.window is not None and request.end > agent.engine.window:
            episode.stop_reason = StopReason.WINDOW_FULL
            return
        asked = time.perf_counter()
        completion = await agent.engine.complete(request)
        replied = time.perf_counter()
        if episode.tape:
            episode.tape.append(completion.token_ids)
        reply = split_reply(
            agent.renderer,
            completion,
            turn=turn,
            actions=env.actions,
            max_state_tokens=agent.budget.internal_state,
            max_action_tokens=agent.budget.action,
        )
        observation = await env.step(reply.action, faults=reply.faults)
        over = observation.done or turn == agent.max_turns
        parts = _parts(reply, observation.text, episode=episode, turn=turn)
        record = Turn(
            context=context,
            completion=completion,
            action=reply.action,
            faults=reply.faults,
            observation=None if over else parts.observation.text,
            engine_s=replied - asked,
            env_s=time.perf_counter() - replied,
        )
        episode.turns.append(record)
        if on_turn:
            on_turn(record)
        if observation.done:
            episode.stop_reason, episode.answer = _ending(reply.action, observation)
            return
        context = agent.context.update(context, parts)


def _ending(action: Action | None, observation: Observation) -> tuple[StopReason, str | None]:
    """Why the world ended an episode, and with what answer."""
    if observation.outcome is None and action is not None and action.name == ANSWER_TAG:
        return StopReason.ANSWERED, action.argument
    return StopReason.DONE, observation.outcome


def _prompt(text: str, *, renderer: Renderer) -> Segment:
    ids = renderer.render([Message(role="user", content=text)])
    return Segment(kind=SegmentKind.PROMPT, turn=0, token_ids=ids, text=text)


def _request(context: Context, *, episode: _Episode, turn: int) -> Request:
    agent = episode.agent
    sampling = agent.sampling
    if sampling.seed is not None:
        digest = hashlib.blake2b(f"{episode.seed}/{turn}".encode(), digest_size=4).digest()
        sampling = replace(sampling, seed=int.from_bytes(digest) >> 1)
    return Request(
        prompt_ids=context_ids(context),
        messages=context_messages(context),
        max_tokens=agent.budget.reply,
        stop=tuple(close_tag(name) for name in episode.env.actions),
        sampling=sampling,
        carry=_carry(context, tape=episode.tape) if episode.tape else None,
    )


def _carry(context: Context, *, tape: Tape) -> Carry:
    kept, new_ids = tape.show(context)
    return Carry(episode=tape, kept=tuple(kept), start=len(tape.token_ids) - len(new_ids))


def _parts(reply: ReplyParts, observation: str, *, episode: _Episode, turn: int) -> Parts:
    """What the turn adds to the context; observation and hint share one cap."""
    renderer, budget = episode.agent.renderer, episode.agent.budget
    hint = text_segment(
        renderer, hint_text(episode.agent.max_turns - turn), kind=SegmentKind.HINT, turn=turn
    )
    return Parts(
        reply=reply.reply,
        internal_state=reply.internal_state,
        action=reply.action_segment,
        observation=observation_segment(
            renderer,
            observation,
            turn=turn,
            max_tokens=budget.observation - len(hint.token_ids),
            tags=episode.env.actions,
        ),
        hint=hint,
    )


def hint_text(turns_left: int) -> str:
    """The hint that ends a context: how many turns are left, and at the last one to answer now."""
    if turns_left == 1:
        return f"[{HINT_TAG}]You have 1 turn left. You must answer now.[/{HINT_TAG}]\n"
    return f"[{HINT_TAG}]You have {turns_left} turns left.[/{HINT_TAG}]\n"
