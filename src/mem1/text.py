"""Text rules: tags in and out, answers compared, foreign text made harmless.

    sampled text -> parse_reply -> Reply(state span, Action, faults)
    foreign text -> neutralise  -> text without control characters or working tags
    answer text  -> normalise_answer -> the form in which answers are compared

Tags are lower case and exact: what is nearly a tag is text, and a recorded fault.
"""

import re
import string
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mem1.types import Action, Fault

STATE_TAG = "think"
SUMMARY_TAG = "summary"
"""Of the internal state in a reply that has one; its `<think>` is then forgotten."""
ANSWER_TAG = "answer"
OBSERVATION_TAG = "information"
HINT_TAG = "HINT"
TOOL_TAG = "tool"
"""Of an action that names its tool inside: `<tool name="weather">{"city": "Oslo"}</tool>`."""
RESERVED_TAGS = (STATE_TAG, SUMMARY_TAG, ANSWER_TAG, OBSERVATION_TAG, HINT_TAG, TOOL_TAG, "search")
"""Tags that never survive in foreign text; the names of other tools are added to them."""

MAX_FOREIGN_BYTES = 1 << 20
"""More than this of one foreign text (UTF-8 bytes) is cut off before anything else is done."""


def open_tag(name: str) -> str:
    return f"<{name}>"


def close_tag(name: str) -> str:
    return f"</{name}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A sampled reply taken apart. Spans are [start, end) in characters of the sampled text."""

    state_span: tuple[int, int] | None
    """The internal state with its tags; None if there is none to keep."""
    action_span: tuple[int, int] | None
    """The action with its tags; None if there is no valid action."""
    action: Action | None
    faults: tuple[Fault, ...]


def parse_reply(text: str, *, actions: Sequence[str]) -> Reply:
    """Find the internal state and the one action in a sampled reply.

    Args: `text`, decoded sampled tokens; `actions`, names of the actions that exist; with `tool`
    among them, `<tool name="x">` is the action `tool:x`.
    A wrong state and a wrong action are independent faults: each is recorded, neither is guessed.
    """
    state_span, state_fault = _find_state(text)
    start = state_span[1] if state_span else 0
    action_span, action, action_fault = _find_action(text, actions=actions, start=start)
    faults = tuple(fault for fault in (state_fault, action_fault) if fault)
    return Reply(state_span=state_span, action_span=action_span, action=action, faults=faults)


def _find_state(text: str) -> tuple[tuple[int, int] | None, Fault | None]:
    name = SUMMARY_TAG if open_tag(SUMMARY_TAG) in text else STATE_TAG
    opener, closer = open_tag(name), close_tag(name)
    start = text.find(opener)
    if start < 0:
        return None, Fault.STATE_MISSING
    end = text.find(closer, start)
    if end < 0:
        return None, Fault.STATE_UNCLOSED
    if text.count(opener) > 1 or text.count(closer) > 1:
        return None, Fault.STATE_DUPLICATED
    if not text[start + len(opener) : end].strip():
        return None, Fault.STATE_EMPTY
    return (start, end + len(closer)), None


TOOL_NAME = "[A-Za-z0-9_.-]{1,64}"
_NAMED_TOOL = f'<{TOOL_TAG} name="(?P<tool>{TOOL_NAME})">'


def _find_action(
    text: str, *, actions: Sequence[str], start: int
) -> tuple[tuple[int, int] | None, Action | None, Fault | None]:
    names = "|".join(re.escape(name) for name in actions if name != TOOL_TAG)
    named = _NAMED_TOOL if TOOL_TAG in actions else "(?!)"
    openers = list(re.finditer(f"<({names or '(?!)'})>|{named}", text[start:]))
    if not openers:
        return None, None, Fault.NO_ACTION
    first = openers[0]
    tag = first[1] or TOOL_TAG
    name = first[1] or f"{TOOL_TAG}:{first['tool']}"
    begin, body = start + first.start(), start + first.end()
    end = text.find(close_tag(tag), body)
    if end < 0:
        return None, None, Fault.ACTION_UNCLOSED
    if len(openers) > 1:
        return None, None, Fault.TWO_ACTIONS
    argument = text[body:end].strip()
    if not argument:
        return None, None, Fault.ACTION_EMPTY
    stop = end + len(close_tag(tag))
    if text[stop:].strip():
        return None, None, Fault.TEXT_AFTER_ACTION
    return (begin, stop), Action(name=name, argument=argument), None


def tag_of(action: str) -> str:
    """The tag of an action's name: `tool:weather` is written in `<tool name="weather">`."""
    return action.partition(":")[0]


def close_open_tag(text: str, *, stop: Sequence[str]) -> str:
    """Append the stop string that a server cut off: the one whose opening tag came last."""
    openers = {close_tag(TOOL_TAG): f"<{TOOL_TAG} "}
    opened = [(text.rfind(openers.get(c, c.replace("</", "<", 1))), c) for c in stop]
    position, closer = max(opened, default=(-1, ""))
    return text + closer if position >= 0 and closer not in text[position:] else text


def neutralise(text: str, *, tags: Iterable[str] = ()) -> str:
    """Make text that is not ours harmless: still readable, no longer obeyed.

    Cuts it to `MAX_FOREIGN_BYTES`, drops control and invisible characters (newline and tab stay),
    and breaks every reserved tag, in any case, spacing, attribute or slash form, closed or cut
    off, by replacing its bracket: `< /Answer x>` becomes `‹ /Answer x>`. Idempotent.

    Args: `tags`, names to break besides `RESERVED_TAGS`.
    """
    if len(text) > MAX_FOREIGN_BYTES // 4:
        head = text[:MAX_FOREIGN_BYTES].encode("utf-8", "replace")
        text = head[:MAX_FOREIGN_BYTES].decode("utf-8", "ignore")
    invisible = {c for c in set(text) - {"\n", "\t"} if unicodedata.category(c).startswith("C")}
    text = text.translate(dict.fromkeys(map(ord, invisible)))
    names = "|".join(re.escape(name) for name in dict.fromkeys((*RESERVED_TAGS, *tags)))
    # The wide forms are brackets too for tokenizers that normalise to NFKC.
    text = re.sub(rf"[<＜﹤](?=[^\w<＜﹤‹]*(?:{names})\b)", "‹", text, flags=re.IGNORECASE)
    return re.sub(rf"[\[［](?=[^\w\[［⁅]*{HINT_TAG}\b)", "⁅", text, flags=re.IGNORECASE)


_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise_answer(text: str) -> str:
    """SQuAD's normal form: lower case, no ASCII punctuation, no articles, single blanks.

    Source: Rajpurkar et al. 2016, evaluate-v1.1.py.

    >>> normalise_answer("The  U.S. Senate")
    'us senate'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())
