"""How text becomes part of a context: the one gate for foreign text, and for sampled text.

foreign text -> observation_segment -> neutralised, capped, wrapped, closing tag intact
sampled text -> split_reply         -> state and action: the same ids, unless they forge tags
our own text -> text_segment
a context    -> context_messages    -> messages, for servers that only chat
"""

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
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
    another tag or holds a control token (a model that copied a forged page) is that part
    neutralised and encoded anew; the trained tokens, in the completion, are untouched by that.
    No token is torn: one that straddles two parts goes to the earlier of those that are kept.

    Blank tokens between the parts stay with them: of a well-formed reply, state ids + action ids
    are exactly the reply's ids, so that turn 2's context continues turn 1's sequence.
    """
    text, ids = completion.text, completion.token_ids
    parsed = parse_reply(text, actions=actions)
    faults = list(parsed.faults)
    measure = _Measure(renderer, ids)
    # An engine that counts in another tokenizer may sample more than was asked for.
    end = min(measure.until(len(text)), max_state_tokens + max_action_tokens)

    sampled = partial(_sampled_segment, renderer, ids, turn=turn)

    def piece(span: tuple[int, int], kind: SegmentKind, *, after: int) -> tuple[Segment, int]:
        start, stop = _widened(text, span)
        first = max(after, measure.before(start))
        last = measure.until(stop)
        own = text[slice(*span)]
        safe = _neutralised(own, tags=actions)
        if safe != own or _holds_control_token(renderer, ids[first:last], own):
            return text_segment(renderer, safe, kind=kind, turn=turn), last
        return sampled(kind=kind, start=first, stop=last), last

    state, action_segment, action, kept = None, None, parsed.action, 0
    if parsed.state_span:
        state, kept = piece(parsed.state_span, SegmentKind.INTERNAL_STATE, after=0)
        if len(state.token_ids) > max_state_tokens:
            state, kept = None, 0
            faults.append(Fault.STATE_OVERSIZE)
    if parsed.action_span:
        action_segment, _ = piece(parsed.action_span, SegmentKind.ACTION, after=kept)
        if len(action_segment.token_ids) > max_action_tokens:
            action_segment = action = None
            faults.append(Fault.ACTION_OVERSIZE)
    return ReplyParts(
        reply=sampled(kind=SegmentKind.REPLY, start=0, stop=end),
        internal_state=state,
        action_segment=action_segment,
        action=action,
        faults=tuple(faults),
    )


def _sampled_segment(
    renderer: Renderer,
    token_ids: tuple[int, ...],
    *,
    kind: SegmentKind,
    turn: int,
    start: int,
    stop: int,
) -> Segment:
    """A slice of what was sampled, ids and all."""
    ids = token_ids[start:stop]
    return Segment(kind=kind, turn=turn, token_ids=ids, text=renderer.decode(ids), start=start)


def _inside(part: str) -> tuple[int, int]:
    """Where the text between a part's own tags starts and ends."""
    return part.find(">") + 1, part.rfind("<")


def _neutralised(part: str, *, tags: Sequence[str]) -> str:
    """A part with its own tags intact and what stands between them made harmless."""
    start, end = _inside(part)
    return part[:start] + neutralise(part[start:end], tags=tags) + part[end:]


def _holds_control_token(renderer: Renderer, token_ids: Sequence[int], part: str) -> bool:
    """Whether a token stands for something in brackets that no text encodes to."""
    shaped = set(re.findall(r"<[^<>\s]+>|\[[^\[\]\s]+\]", part[slice(*_inside(part))]))
    texts = {token: renderer.decode([token]) for token in set(token_ids)} if shaped else {}
    return any(
        text in shaped and token not in renderer.encode(text) for token, text in texts.items()
    )


def _widened(text: str, span: tuple[int, int]) -> tuple[int, int]:
    """The span with the blanks before it, and those after it if nothing else follows."""
    start, stop = len(text[: span[0]].rstrip()), span[1]
    return start, len(text) if not text[stop:].strip() else stop


class _Measure:
    """Where the characters of sampled tokens are; decodes no prefix twice."""

    def __init__(self, renderer: Renderer, token_ids: tuple[int, ...]) -> None:
        self._num_tokens = len(token_ids)
        self._chars = cache(lambda num_tokens: len(renderer.decode(token_ids[:num_tokens])))

    def until(self, num_chars: int) -> int:
        """The least number of tokens with all bytes of the first `num_chars` characters."""
        low = bisect_left(range(self._num_tokens), num_chars, key=self._chars)
        # Half a character counts as one: its other bytes may be in up to 3 more tokens.
        more = range(min(low + 3, self._num_tokens), low, -1) if num_chars else ()
        return next((longer for longer in more if self._chars(longer) <= num_chars), low)

    def before(self, num_chars: int) -> int:
        """The number of tokens before the one that holds the character at `num_chars`."""
        until = self.until(num_chars)
        return until - (self._chars(until) > num_chars)


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
