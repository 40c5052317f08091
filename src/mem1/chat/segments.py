"""How text becomes part of a context: the one gate for foreign text, and for sampled text.

foreign text -> observation_segment -> neutralised, capped, wrapped, closing tag intact
sampled text -> split_reply         -> state and action: the same ids, unless they forge tags
our own text -> text_segment
a context    -> context_messages    -> messages, for servers that only chat
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mem1.chat.base import Renderer
from mem1.errors import BudgetError
from mem1.text import OBSERVATION_TAG, close_tag, neutralise, open_tag, parse_reply
from mem1.types import Action, Completion, Context, Fault, Message, Segment, SegmentKind


def text_segment(renderer: Renderer, text: str, *, kind: SegmentKind, turn: int) -> Segment:
    """A segment of our own text."""
    return Segment(kind=kind, turn=turn, token_ids=renderer.encode(text), text=text)


def observation_segment(
    renderer: Renderer, text: str, *, turn: int, max_tokens: int, tags: Sequence[str] = ()
) -> Segment:
    """Wrap what the world said so that it fits `max_tokens`, tags included, whatever it says.

    Args: `text`, foreign, of any size; `tags`, the names of the actions that exist.
    Raises: BudgetError if not even the tags fit.
    """
    head = renderer.encode(f"\n{open_tag(OBSERVATION_TAG)}")
    tail = renderer.encode(f"{close_tag(OBSERVATION_TAG)}\n")
    room = max_tokens - len(head) - len(tail)
    if room < 0:
        raise BudgetError(
            f"observation cap {max_tokens} is too small: its tags alone take "
            f"{len(head) + len(tail)} tokens"
        )
    # No tokenizer here makes a token of more than 64 bytes of running text: cut before encoding,
    # so that a megabyte costs what a page costs.
    body = renderer.encode(neutralise(text, tags=tags).strip()[: 64 * room])
    body = _whole_characters(renderer, body[:room])
    ids = head + body + tail
    return Segment(
        kind=SegmentKind.OBSERVATION, turn=turn, token_ids=ids, text=renderer.decode(ids)
    )


def _whole_characters(renderer: Renderer, token_ids: tuple[int, ...]) -> tuple[int, ...]:
    """Drop tokens at the end that hold only a part of a character (at most 3 bytes of one)."""
    for cut in range(min(4, len(token_ids) + 1)):
        kept = token_ids[: len(token_ids) - cut]
        if not renderer.decode(kept).endswith("\ufffd"):
            return kept
    return token_ids


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyParts:
    """A sampled reply, whole and taken apart in token space."""

    reply: Segment
    """All sampled tokens but a final end-of-sequence token."""
    internal_state: Segment | None
    """None if the reply has none that may be kept."""
    action_segment: Segment | None
    action: Action | None
    faults: tuple[Fault, ...]


def split_reply(
    renderer: Renderer,
    completion: Completion,
    *,
    turn: int,
    actions: Sequence[str],
    max_state_tokens: int,
    max_action_tokens: int,
) -> ReplyParts:
    """Take a completion apart without tokenising it anew.

    The ids are kept as they were sampled. Only if what stands inside the tags of a part forges
    another tag (a model that copied a forged page) is that part neutralised and encoded anew; the
    trained tokens, in the completion, are untouched by that. A token that straddles two parts goes
    to the earlier one.

    Blank tokens between the parts stay with them: of a well-formed reply, state ids + action ids
    are exactly the reply's ids, so that turn 2's context continues turn 1's sequence.
    """
    text, ids = completion.text, completion.token_ids
    parsed = parse_reply(text, actions=actions)
    faults = list(parsed.faults)
    end = _tokens_until(renderer, ids, num_chars=len(text))
    reply = Segment(
        kind=SegmentKind.REPLY, turn=turn, token_ids=ids[:end], text=renderer.decode(ids[:end])
    )

    def piece(span: tuple[int, int], kind: SegmentKind) -> Segment:
        safe = _neutralised(text[slice(*span)], tags=actions)
        if safe != text[slice(*span)]:
            return text_segment(renderer, safe, kind=kind, turn=turn)
        first, last = (_tokens_until(renderer, ids, num_chars=n) for n in _widened(text, span))
        kept = ids[first:last]
        return Segment(kind=kind, turn=turn, token_ids=kept, text=renderer.decode(kept))

    state, action_segment, action = None, None, parsed.action
    if parsed.state_span:
        state = piece(parsed.state_span, SegmentKind.INTERNAL_STATE)
        if len(state.token_ids) > max_state_tokens:
            state = None
            faults.append(Fault.STATE_OVERSIZE)
    if parsed.action_span:
        action_segment = piece(parsed.action_span, SegmentKind.ACTION)
        if len(action_segment.token_ids) > max_action_tokens:
            action_segment = action = None
            faults.append(Fault.ACTION_OVERSIZE)
    return ReplyParts(
        reply=reply,
        internal_state=state,
        action_segment=action_segment,
        action=action,
        faults=tuple(faults),
    )


def _neutralised(part: str, *, tags: Sequence[str]) -> str:
    """A part with its own tags intact and what stands between them made harmless."""
    start, end = part.find(">") + 1, part.rfind("<")
    return part[:start] + neutralise(part[start:end], tags=tags) + part[end:]


def _widened(text: str, span: tuple[int, int]) -> tuple[int, int]:
    """The span with the blanks before it, and those after it if nothing else follows."""
    start, stop = len(text[: span[0]].rstrip()), span[1]
    return start, len(text) if not text[stop:].strip() else stop


def _tokens_until(renderer: Renderer, token_ids: Sequence[int], *, num_chars: int) -> int:
    """The least number of tokens whose text has at least `num_chars` characters."""
    low, high = 0, len(token_ids)
    while low < high:
        middle = (low + high) // 2
        if len(renderer.decode(token_ids[:middle])) >= num_chars:
            high = middle
        else:
            low = middle + 1
    return low


_ROLES: Mapping[SegmentKind, Literal["user", "assistant"]] = {
    SegmentKind.PROMPT: "user",
    SegmentKind.INTERNAL_STATE: "assistant",
    SegmentKind.ACTION: "assistant",
    SegmentKind.REPLY: "assistant",
    SegmentKind.OBSERVATION: "user",
    SegmentKind.HINT: "user",
}


def context_messages(context: Context) -> tuple[Message, ...]:
    """A context as chat messages: what the model said is the assistant's, all else the user's."""
    messages: list[Message] = []
    for segment in context:
        role = _ROLES[segment.kind]
        if messages and messages[-1].role == role:
            text = messages.pop().content + segment.text
        else:
            text = segment.text
        messages.append(Message(role=role, content=text))
    return tuple(messages)
