"""The nouns of mem1: a Task goes in, a Trajectory of Turns comes out. Standard library only.

    Task(objectives) -> [Turn(context, completion, action, observation), ...] = Trajectory

All of them are frozen values; `mem1.rollout.store` writes them to JSONL and reads them back
without loss.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

SCHEMA_VERSION = 1
"""Version of the stored form of a Trajectory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """One question of a task, with every answer that counts as right."""

    question: str
    answers: tuple[str, ...]
    """Gold answers (aliases of one another); empty only for a question asked without any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One problem: N objectives that are asked together and answered together.

    >>> Task(id="t", objectives=(Objective(question="Capital of France?", answers=("Paris",)),))
    ... # doctest: +ELLIPSIS
    Task(id='t', ...)
    """

    id: str
    objectives: tuple[Objective, ...]
    source: str = ""
    """Data set the task came from, for grouping in reports."""
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """JSON values an environment needs beyond the objectives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One chat message."""

    role: Literal["system", "user", "assistant"]
    content: str


class SegmentKind(StrEnum):
    """What a part of a context is."""

    PROMPT = "prompt"
    """The task prompt, chat template included."""
    INTERNAL_STATE = "internal_state"
    ACTION = "action"
    REPLY = "reply"
    """A whole sampled reply: what policies keep that do not take it apart."""
    OBSERVATION = "observation"
    HINT = "hint"
    """How many turns are left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A part of a context: text, and the token ids that stand for it.

    Ids of sampled text are the sampled ids themselves, never a second tokenisation.
    """

    kind: SegmentKind
    turn: int
    """The turn it comes from, counted from 1; 0 for the prompt."""
    token_ids: tuple[int, ...]
    text: str
    start: int | None = None
    """Where its ids begin in the sampled reply they are a slice of; None if they were encoded."""


Context = tuple[Segment, ...]
"""What the model sees, in order; its token ids are those of its segments, one after the other."""


def context_ids(context: Context) -> tuple[int, ...]:
    """The token ids of a context, shape (num_tokens,)."""
    return tuple(token for segment in context for token in segment.token_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to sample a reply."""

    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    seed: int | None = None
    """Of a run; each episode and turn draws its own from it. None: not reproducible."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What an engine sampled.

    >>> Completion(token_ids=(5, 9, 2), logprobs=(-0.1, -1.2, -0.3), temperature=1.0,
    ...            text="<answer>Paris</answer>", finish_reason="stop").num_tokens
    3
    """

    token_ids: tuple[int, ...]
    """Exactly the sampled ids, stop string and end-of-sequence included; shape (num_tokens,)."""
    logprobs: tuple[float, ...] | None
    """Natural log-probability of each id under the full softmax at `temperature` (before top-p);
    None if the engine does not tell."""
    temperature: float
    """Temperature of `logprobs`: that of sampling; or 1, for greedy sampling and for servers that
    tell log-probabilities from before the temperature."""
    text: str
    """The decoded ids, without a final end-of-sequence token."""
    finish_reason: Literal["stop", "length"]
    exact: bool = True
    """False if `token_ids` were not told by the engine but made from its text."""

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What the model decided to do: the name of a tool, or `answer`."""

    name: str
    argument: str


class Fault(StrEnum):
    """What was wrong with the form of a reply."""

    STATE_MISSING = "state_missing"
    STATE_UNCLOSED = "state_unclosed"
    STATE_EMPTY = "state_empty"
    STATE_DUPLICATED = "state_duplicated"
    STATE_OVERSIZE = "state_oversize"
    NO_ACTION = "no_action"
    ACTION_UNCLOSED = "action_unclosed"
    ACTION_EMPTY = "action_empty"
    ACTION_OVERSIZE = "action_oversize"
    TWO_ACTIONS = "two_actions"
    TEXT_AFTER_ACTION = "text_after_action"


STATE_FAULTS = frozenset(fault for fault in Fault if fault.value.startswith("state_"))
ACTION_FAULTS = frozenset(Fault) - STATE_FAULTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One model call and the world's reply to it."""

    context: Context
    """What the model saw."""
    completion: Completion
    action: Action | None
    """None if the reply holds no valid action."""
    faults: tuple[Fault, ...]
    observation: str | None
    """The world's reply as the next context may hold it (wrapped, capped); None after the last."""
    engine_s: float
    """Seconds spent waiting for the engine."""
    env_s: float
    """Seconds spent in the environment and its tools."""

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """Exactly the ids the engine received, shape (num_prompt_tokens,)."""
        return context_ids(self.context)


class StopReason(StrEnum):
    """Why an episode ended."""

    ANSWERED = "answered"
    DONE = "done"
    """The environment ended it without an answer (a purchase, say)."""
    MAX_TURNS = "max_turns"
    WINDOW_FULL = "window_full"
    """The next context would not fit the model's window: with a policy that has no bound, or in
    mode `carry`, whose positions run on."""
    PROMPT_TOO_LONG = "prompt_too_long"
    ENGINE_ERROR = "engine_error"
    TOOL_ERROR = "tool_error"
    EPISODE_ERROR = "episode_error"
    """An unexpected exception in an environment, tool or context policy."""


FAILURES = frozenset({StopReason.ENGINE_ERROR, StopReason.TOOL_ERROR, StopReason.EPISODE_ERROR})
"""Outcomes that say nothing about the agent: counted, and owed again by the next run."""


SamplingMode = Literal["reencode", "carry"]
"""How a context reaches the model at each turn: encoded anew, as any server does; or each token
once, with the keys and values of what is dropped really evicted (local engine only).

Carried tokens keep the position at which they were computed, and positions run on over what was
evicted: the model's window bounds all tokens of an episode, not only those seen at a time.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """The record of one episode."""

    task: Task
    sample: int
    """Which rollout of the task this is, counted from 0."""
    context_policy: str
    """Name and settings of the policy, for example `window(k=2)`."""
    turns: tuple[Turn, ...]
    stop_reason: StopReason
    answer: str | None
    """Argument of the answer action, or what the environment ended with (a purchase); None if
    there's none."""
    reward: float
    reward_parts: Mapping[str, float]
    bound: int | None
    """Certified largest context + reply, in tokens; None if the policy has none."""
    seconds: float
    mode: SamplingMode = "reencode"
    error: str | None = None
    """What failed, if `stop_reason` is a failure. For people, never shown to a model."""

    @property
    def num_turns(self) -> int:
        return len(self.turns)

    @property
    def exact(self) -> bool:
        """Whether every token id and log-probability is the engine's own."""
        return all(t.completion.exact and t.completion.logprobs is not None for t in self.turns)


def num_tokens(segments: Sequence[Segment]) -> int:
    """Tokens in some segments."""
    return sum(len(segment.token_ids) for segment in segments)
