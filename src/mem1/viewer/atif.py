"""A TRAJECTORY -> ATIF, the Agent Trajectory Interchange Format of the Harbor project. Pure.

    Record -> atif_document -> {"schema_version": "ATIF-v1.7", "steps": [...], ...}

Step 1 is the task prompt; each turn is an agent's step. A context that lost something since the
turn before is announced by a system's step that holds all of the new one, marked as the format says
(`extra.context_management`: whatever came before is replaced). What the format has no place for is
in `extra`. 1.7 is the oldest version with every field written here; 1.8 only adds audio.
Source: github.com/harbor-framework/harbor, rfcs/0001-trajectory-format.md.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from mem1.evals.metrics import measure
from mem1.text import ANSWER_TAG, parse_reply, tag_of
from mem1.types import Context, SegmentKind, Trajectory, Turn, context_ids, num_tokens
from mem1.viewer.records import Record

ATIF_VERSION = "ATIF-v1.7"

NOTES = (
    "The agent doesn't see all steps before: prompt_token_ids is exactly what a call saw, and "
    "extra.context names its parts. A system step with extra.context_management holds the whole "
    "context that replaces what came before. reasoning_content is the internal state, a memory "
    "that the agent writes itself; extra.reply is the whole sampled text."
)

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where an exported trajectory is from."""

    run: str
    """Name of the run's folder."""
    version: str
    """Of mem1."""
    model: str | None


def atif_document(record: Record, *, origin: Origin) -> Json:
    """The ATIF document of a trajectory, as JSON values; fields without a value are left out."""
    trajectory = record.trajectory
    steps = _steps(record)
    turns = trajectory.turns
    return _known(
        {
            "schema_version": ATIF_VERSION,
            "session_id": origin.run,
            "trajectory_id": f"{origin.run}-{record.number:06d}",
            "agent": _known(
                {
                    "name": "mem1",
                    "version": origin.version,
                    "model_name": origin.model,
                    "extra": {
                        "context_policy": trajectory.context_policy,
                        "mode": trajectory.mode,
                    },
                }
            ),
            "steps": [{"step_id": number, **step} for number, step in enumerate(steps, start=1)],
            "notes": NOTES,
            "final_metrics": {
                "total_prompt_tokens": sum(num_tokens(turn.context) for turn in turns),
                "total_completion_tokens": sum(turn.completion.num_tokens for turn in turns),
                "total_steps": len(steps),
                "extra": {"reward": trajectory.reward, **measure(trajectory)},
            },
            "extra": _outcome(trajectory, step=record.step),
        }
    )


def _outcome(trajectory: Trajectory, *, step: int | None) -> Json:
    """What is asked, and what became of it."""
    return _known(
        {
            "task": asdict(trajectory.task),
            "sample": trajectory.sample,
            "training_step": step,
            "bound": trajectory.bound,
            "stop_reason": trajectory.stop_reason,
            "answer": trajectory.answer,
            "reward": trajectory.reward,
            "reward_parts": dict(trajectory.reward_parts),
            "error": trajectory.error,
            "seconds": trajectory.seconds,
        }
    )


def _steps(record: Record) -> list[Json]:
    turns = record.trajectory.turns
    steps = [{"source": "user", "message": _prompt(record.trajectory)}]
    for number, turn in enumerate(turns, start=1):
        if number > 1 and (rewritten := _rewritten(turns[number - 2], turn)):
            steps.append(rewritten)
        advantages = record.advantages[number - 1] if record.advantages else None
        steps.append(_agent_step(turn, number=number, advantages=advantages))
    return steps


def _prompt(trajectory: Trajectory) -> str:
    """The task prompt as the model saw it, or the questions if it never saw any."""
    if not trajectory.turns:
        return "\n".join(objective.question for objective in trajectory.task.objectives)
    first = trajectory.turns[0].context
    return _text(tuple(s for s in first if s.kind is SegmentKind.PROMPT) or first)


def _rewritten(before: Turn, turn: Turn) -> Json | None:
    """The step that replaces the context; None if nothing of it is lost."""
    if turn.context[: len(before.context)] == before.context:
        return None
    return {
        "source": "system",
        "message": "The context was rewritten: what it no longer holds is evicted.",
        "observation": {"results": [{"content": _text(turn.context)}]},
        "extra": {
            "context_management": {
                "type": "compaction",
                "boundary": "replace",
                "tokens_before": num_tokens(before.context) + before.completion.num_tokens,
                "tokens_after": num_tokens(turn.context),
            }
        },
    }


def _agent_step(turn: Turn, *, number: int, advantages: tuple[float, ...] | None) -> Json:
    text, action = turn.completion.text, turn.action
    reply = parse_reply(text, actions=(tag_of(action.name),) if action else ())
    state = text[slice(*reply.state_span)] if reply.state_span else ""
    spans = [span for span in (reply.state_span, reply.action_span) if span]
    is_answer = action is not None and action.name == ANSWER_TAG
    call = None if action is None or is_answer else f"turn-{number}"
    result = _known({"source_call_id": call, "content": turn.observation})
    message = _outside(text, spans)
    if action is not None and is_answer:
        message = "\n".join(part for part in (message, action.argument) if part)
    return _known(
        {
            "source": "agent",
            "message": message,
            "reasoning_content": state[state.find(">") + 1 : state.rfind("<")].strip() or None,
            "tool_calls": [
                {
                    "tool_call_id": call,
                    "function_name": action.name,
                    "arguments": {"argument": action.argument},
                }
            ]
            if call and action
            else None,
            "observation": None if turn.observation is None else {"results": [result]},
            "metrics": _metrics(turn, advantages=advantages),
            "llm_call_count": 1,
            "extra": {
                "turn": number,
                "reply": text,
                "faults": list(turn.faults),
                "context": [
                    {"kind": s.kind, "turn": s.turn, "tokens": len(s.token_ids)}
                    for s in turn.context
                ],
            },
        }
    )


def _metrics(turn: Turn, *, advantages: tuple[float, ...] | None) -> Json:
    """Ids and log-probabilities are left out where the engine didn't tell the ids: others would
    train on them."""
    sampled = turn.completion
    told = sampled.exact
    return _known(
        {
            "prompt_tokens": num_tokens(turn.context),
            "completion_tokens": sampled.num_tokens,
            "prompt_token_ids": list(context_ids(turn.context)) if told else None,
            "completion_token_ids": list(sampled.token_ids) if told else None,
            "logprobs": list(sampled.logprobs) if told and sampled.logprobs is not None else None,
            "extra": _known(
                {
                    "exact": sampled.exact,
                    "temperature": sampled.temperature,
                    "finish_reason": sampled.finish_reason,
                    "engine_s": turn.engine_s,
                    "env_s": turn.env_s,
                    "advantages": list(advantages) if advantages is not None else None,
                }
            ),
        }
    )


def _outside(text: str, spans: list[tuple[int, int]]) -> str:
    """What is left of a text without some spans of it, which are in order."""
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    pieces = [text[begin:end].strip() for begin, end in list(pairwise(edges))[::2]]
    return "\n".join(piece for piece in pieces if piece)


def _text(context: Context) -> str:
    return "".join(segment.text for segment in context)


def _known(fields: Mapping[str, Any]) -> Json:
    return {name: value for name, value in fields.items() if value is not None}
