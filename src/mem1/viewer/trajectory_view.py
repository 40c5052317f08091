"""ONE TRAJECTORY -> ALL THERE IS TO SHOW OF IT, as JSON-able data. Pure.

    Record -> trajectory_view -> outcome, segments, turns, facts, figures, savings
    Record, turn, decode -> tokens_view -> each token's text, log-probability, advantage

A segment stands once in `segments`; contexts are lists of its indices.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mem1.evals.memory import MemoryTrace, half_life, internal_states, trace
from mem1.evals.metrics import measure, pairs
from mem1.rewards.answer import exact_match, f1, split_answer
from mem1.tasks.facts import facts_of
from mem1.text import STATE_TAG, close_tag, open_tag, parse_reply, tag_of
from mem1.types import Segment, SegmentKind, Trajectory, Turn, num_tokens
from mem1.viewer.records import Record

Json = dict[str, Any]
Decode = Callable[[Sequence[int]], str]
"""Token ids to text."""

FIGURES = ("survival", "corruption", "invention", "redundancy")
NEVER_DROPPED = frozenset({SegmentKind.PROMPT, SegmentKind.OBSERVATION, SegmentKind.HINT})
"""What full context holds for good, besides whole replies."""


def trajectory_view(record: Record) -> Json:
    """Everything but its tokens one by one."""
    it = record.trajectory
    segments, contexts = _numbered(it.turns)
    full = full_context_tokens(it.turns)
    memory = trace(it)
    figures = measure(it, memory=memory)
    survival = figures.get("survival")
    return {
        "task_id": it.task.id,
        "sample": it.sample,
        "step": record.step,
        "context_policy": it.context_policy,
        "mode": it.mode,
        "stop_reason": it.stop_reason,
        "reward": it.reward,
        "reward_parts": dict(it.reward_parts),
        "bound": it.bound,
        "seconds": it.seconds,
        "error": it.error,
        "answer": it.answer,
        "objectives": _objectives(it),
        "metrics": figures,
        "segments": [_segment(segment) for segment in segments],
        "turns": _turns(it.turns, contexts=contexts, full=full),
        "facts": _facts(it, memory),
        "figures": {name: figures.get(name) for name in FIGURES}
        | {"half_life": None if survival is None else half_life(survival)},
        "savings": _savings(it, figures, full=full),
    }


def full_context_tokens(turns: Sequence[Turn]) -> list[int]:
    """Tokens that full context would have held at each turn: the prompt, all replies before it, and
    every observation and hint that was seen so far."""
    sizes: list[int] = []
    seen: set[tuple[SegmentKind, int]] = set()
    total = 0
    for turn in turns:
        for segment in turn.context:
            place = (segment.kind, segment.turn)
            if segment.kind in NEVER_DROPPED and place not in seen:
                seen.add(place)
                total += len(segment.token_ids)
        sizes.append(total)
        total += turn.completion.num_tokens
    return sizes


def tokens_view(record: Record, turn: int, *, decode: Decode | None) -> Json:
    """The tokens of a turn, counted from 1; their ids as text if nothing decodes them."""
    one = record.trajectory.turns[turn - 1]
    completion = one.completion
    advantages = record.advantages[turn - 1] if record.advantages is not None else None

    def pieces(token_ids: Sequence[int]) -> list[str]:
        return [decode([token]) if decode else f"{token} " for token in token_ids]

    return {
        "context": [pieces(segment.token_ids) for segment in one.context],
        "reply": {
            "pieces": pieces(completion.token_ids),
            "logprobs": completion.logprobs,
            "trained": [not record.left_out] * completion.num_tokens,
            "advantages": advantages,
        },
        "decoded": decode is not None,
    }


def _numbered(turns: Sequence[Turn]) -> tuple[list[Segment], list[list[int]]]:
    """Each segment once, and every context as indices. A stored trajectory has one object for equal
    segments, so that no token is compared."""
    numbers: dict[int, int] = {}
    segments: list[Segment] = []
    contexts: list[list[int]] = []
    for turn in turns:
        for segment in turn.context:
            if id(segment) not in numbers:
                numbers[id(segment)] = len(segments)
                segments.append(segment)
        contexts.append([numbers[id(segment)] for segment in turn.context])
    return segments, contexts


def _segment(segment: Segment) -> Json:
    return {
        "kind": segment.kind,
        "turn": segment.turn,
        "text": segment.text,
        "tokens": len(segment.token_ids),
        "sampled": segment.start is not None,
    }


def _objectives(it: Trajectory) -> list[Json]:
    given = split_answer(it.answer, it.task) if it.answer is not None else ()
    parts = [*given, *[None] * len(it.task.objectives)]
    return [
        {
            "question": objective.question,
            "answers": list(objective.answers),
            "given": part,
            "em": int(part is not None and exact_match(part, objective.answers)),
            "f1": f1(part, objective.answers) if part is not None else 0.0,
        }
        for objective, part in zip(it.task.objectives, parts, strict=False)
    ]


def _turns(
    turns: Sequence[Turn], *, contexts: Sequence[list[int]], full: Sequence[int]
) -> list[Json]:
    states = [_inside(state) for state in internal_states(turns)]
    following: list[list[int] | None] = [*contexts[1:], None]
    before = ["", *states]
    return [
        {
            "turn": number + 1,
            "context": contexts[number],
            "context_tokens": num_tokens(turn.context),
            "reply_tokens": turn.completion.num_tokens,
            "full_tokens": full[number],
            "reply": reply_parts(turn),
            "action": turn.action and {"name": turn.action.name, "argument": turn.action.argument},
            "state_diff": word_diff(before[number], states[number]),
            "observation": turn.observation,
            "evicted": _evicted(contexts[number], following[number]),
            "faults": list(turn.faults),
            "engine_s": turn.engine_s,
            "env_s": turn.env_s,
        }
        for number, turn in enumerate(turns)
    ]


def _evicted(context: Sequence[int], following: Sequence[int] | None) -> list[int]:
    kept = set(context if following is None else following)
    return [index for index in context if index not in kept]


def _inside(state: str) -> str:
    return state.replace(open_tag(STATE_TAG), "").replace(close_tag(STATE_TAG), "")


def reply_parts(turn: Turn) -> list[list[str]]:
    """A reply in order, cut into internal state, action, and what is neither (`reply`)."""
    text, action = turn.completion.text, turn.action
    parsed = parse_reply(text, actions=(tag_of(action.name),) if action else ())
    spans = (
        (parsed.state_span, SegmentKind.INTERNAL_STATE),
        (parsed.action_span, SegmentKind.ACTION),
    )
    parts: list[list[str]] = []
    at = 0
    for (start, stop), kind in sorted((span, kind) for span, kind in spans if span):
        parts += [[SegmentKind.REPLY, text[at:start]], [kind, text[start:stop]]]
        at = stop
    parts.append([SegmentKind.REPLY, text[at:]])
    return [part for part in parts if part[1]]


def word_diff(old: str, new: str) -> list[list[str]]:
    """What of a text's words stayed `=`, went `-` and came `+`, in the order of the new one."""
    a, b = old.split(), new.split()
    found: list[list[str]] = []
    for kind, a1, a2, b1, b2 in difflib.SequenceMatcher(None, a, b).get_opcodes():
        if kind == "equal":
            found.append(["=", " ".join(b[b1:b2])])
            continue
        if a2 > a1:
            found.append(["-", " ".join(a[a1:a2])])
        if b2 > b1:
            found.append(["+", " ".join(b[b1:b2])])
    return found


def _facts(it: Trajectory, memory: MemoryTrace) -> list[Json]:
    facts = facts_of(it.task)
    told = [facts.told(turn.observation) if turn.observation else set() for turn in it.turns]
    return [
        {
            "key": fact.key,
            "values": list(fact.values),
            "objective": fact.objective,
            "page": fact.page,
            "used": memory.used[number],
            "marks": list(memory.marks[number]),
            "told": [turn for turn, heard in enumerate(told, start=1) if number in heard],
        }
        for number, fact in enumerate(memory.facts)
    ]


def _savings(it: Trajectory, figures: Mapping[str, float], *, full: Sequence[int]) -> Json:
    """Peak tokens and dependency (`mem1.evals.metrics`), as it was and with full context."""
    sizes = [(size, turn.completion.num_tokens) for size, turn in zip(full, it.turns, strict=True)]
    return {
        "peak_tokens": figures["peak_tokens"],
        "full_peak_tokens": max((context + reply for context, reply in sizes), default=0),
        "dependency": figures["dependency"],
        "full_dependency": sum(pairs(context, reply) for context, reply in sizes),
    }
