"""What is posted to an OpenAI-compatible server, and what is read out of its answer. Pure.

Request -> Form.body -> JSON -> [server] -> JSON -> read_completion -> Completion

Servers differ: a `Form` is one way of asking, and `FORMS` lists them from the one that tells most
to the one that every server understands. A Completion is exact if the server says that it saw our
prompt ids, which ids it sampled and their log-probabilities. Whatever else comes back is read as
text, encoded by our codec, and marked inexact.

Sources: the request and response models of vLLM (`return_token_ids`, `token_ids`,
`prompt_token_ids`, `return_tokens_as_token_ids`), SGLang (the same names; `no_stop_trim`) and
llama.cpp (`logprobs.content[].id`), as of November 2026.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from mem1.engines.base import Codec, Request
from mem1.errors import EngineError
from mem1.text import STATE_TAG, close_open_tag, close_tag, open_tag
from mem1.types import Completion

FinishReason = Literal["stop", "length"]

_EXTENSIONS = {
    "return_token_ids": True,
    # Of vLLM older than 0.10.2, which ignores the line above.
    "return_tokens_as_token_ids": True,
    "include_stop_str_in_output": True,
    "no_stop_trim": True,
    "skip_special_tokens": False,
    "spaces_between_special_tokens": False,
    # A server's own defaults (of generation_config.json, or llama.cpp's) would sample otherwise
    # than `Sampling` says.
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One way of asking."""

    prompt: Literal["ids", "text", "messages"]
    extensions: bool = False
    """Whether to ask for token ids and log-probabilities, in fields that OpenAI does not have."""
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the server calls the most tokens to sample."""
    minimal: bool = False
    """Leave out seed, stop strings (the reply is cut here) and settings of value 1, which hosted
    reasoning models refuse. Any other temperature is still sent: it's never dropped in silence."""

    def __str__(self) -> str:
        told = "token ids and log-probabilities" if self.extensions else "text, so inexact"
        least = ", no stop strings or seed" if self.minimal else ""
        return f"prompt as {self.prompt}, {self.limit}{least}, reply as {told}"

    @property
    def path(self) -> str:
        return "/chat/completions" if self.prompt == "messages" else "/completions"

    def body(self, request: Request, *, model: str, codec: Codec) -> dict[str, Any]:
        """The JSON to post."""
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": model,
            **self._prompt(request, codec=codec),
            self.limit: request.max_tokens,
        }
        settings = {"temperature": sampling.temperature, "top_p": sampling.top_p}
        if self.minimal:
            return body | {name: value for name, value in settings.items() if value != 1}
        body |= settings
        if request.stop:
            body["stop"] = list(request.stop)
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        if self.extensions:
            body |= _EXTENSIONS | {"logprobs": True if self.prompt == "messages" else 1}
        return body

    def _prompt(self, request: Request, *, codec: Codec) -> dict[str, Any]:
        if self.prompt == "ids":
            return {"prompt": list(request.prompt_ids)}
        if self.prompt == "text":
            return {"prompt": codec.decode(request.prompt_ids)}
        return {"messages": [{"role": m.role, "content": m.content} for m in request.messages]}


FORMS: Mapping[str, tuple[Form, ...]] = {
    "completions": (Form(prompt="ids", extensions=True), Form(prompt="ids"), Form(prompt="text")),
    "chat": (
        Form(prompt="messages", extensions=True),
        Form(prompt="messages"),
        Form(prompt="messages", limit="max_completion_tokens"),
        Form(prompt="messages", limit="max_completion_tokens", minimal=True),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """What a server said about a reply; None where it said nothing usable."""

    text: str
    finish_reason: FinishReason
    token_ids: tuple[int, ...] | None
    logprobs: tuple[float, ...] | None
    prompt_ids: tuple[int, ...] | None
    num_tokens: int | None


def read_completion(
    data: object, *, request: Request, form: Form, codec: Codec, scaled_logprobs: bool = False
) -> Completion:
    """The Completion that a server's JSON stands for.

    If the stop string was cut off, or the ids of the reply's end are missing, the closing tag is
    restored and the completion is inexact: which tokens the model wrote it with is unknown.

    Args: `form`, how it was asked; `scaled_logprobs`, whether the server's log-probabilities are
    at the sampling temperature (SGLang) or at 1 (all others).
    Raises: EngineError if it is not a completion.
    """
    told = _read(data)
    if told.token_ids is not None and _is_of(told, stop=request.stop, codec=codec):
        ids, whole = _restore_end(told.token_ids, told=told, stop=request.stop, codec=codec)
        saw = told.prompt_ids or (request.prompt_ids if form.prompt == "ids" else None)
        logprobs = told.logprobs if whole else None
        exact = logprobs is not None and saw == request.prompt_ids
    else:
        ended = told.finish_reason == "stop"
        text = close_open_tag(told.text, stop=request.stop) if ended else told.text
        ids, logprobs, exact = codec.encode(text), None, False

    kept, finish_reason = cut(ids, request=request, codec=codec, said=told.finish_reason)
    text = codec.decode(kept)
    if finish_reason == "stop" and not _has(text, request.stop) and _is_control(kept, codec=codec):
        text = codec.decode(kept[:-1])
    temperature = request.sampling.temperature if scaled_logprobs or logprobs is None else 1.0
    return Completion(
        token_ids=kept,
        logprobs=None if logprobs is None else logprobs[: len(kept)],
        temperature=temperature or 1.0,
        text=text,
        finish_reason=finish_reason,
        exact=exact,
    )


def _is_of(told: _Told, *, stop: Sequence[str], codec: Codec) -> bool:
    """Whether our codec reads the ids as the text the server sent: if not, it is of another model.

    The text may lack what servers trim: the stop string, or the end-of-sequence token.
    """
    ids = told.token_ids or ()
    try:
        ours, shorter = _bare(codec.decode(ids)), _bare(codec.decode(ids[:-1]))
    except (ValueError, OverflowError, IndexError):
        return False
    theirs = _bare(told.text)
    rest = ours[len(theirs) :].lstrip()
    # Of a token that goes on behind the stop string, vLLM sends the text up to there.
    at_stop = rest.startswith(tuple(stop)) or theirs.endswith(tuple(stop))
    return theirs in (ours, shorter) or (ours.startswith(theirs) and at_stop)


def _bare(text: str) -> str:
    """Text without what depends on how it was decoded: halves of characters, blanks around."""
    return text.replace("\ufffd", "").strip()


def _restore_end(
    ids: tuple[int, ...], *, told: _Told, stop: Sequence[str], codec: Codec
) -> tuple[tuple[int, ...], bool]:
    """The ids with the end that stopped them, and whether they are all the server's own."""
    whole = told.num_tokens in (None, len(ids))
    text = codec.decode(ids)
    if told.finish_reason == "length" or _has(text, stop) or _is_control(ids, codec=codec):
        return ids, whole
    closing = close_open_tag(text, stop=stop)[len(text) :]
    return ids + codec.encode(closing), False


def _is_control(ids: tuple[int, ...], *, codec: Codec) -> bool:
    """Whether the last id is a control token, such as end-of-sequence: no text encodes to it."""
    return bool(ids) and codec.encode(codec.decode(ids[-1:])) != ids[-1:]


def cut(
    ids: tuple[int, ...], *, request: Request, codec: Codec, said: FinishReason
) -> tuple[tuple[int, ...], FinishReason]:
    """Hold the server to `stop` and `max_tokens`, whether it minds them or not."""
    if _has(codec.decode(ids), request.stop):
        counts = range(len(ids) + 1)
        end = bisect_left(counts, True, key=lambda n: _has(codec.decode(ids[:n]), request.stop))
        ids, said = ids[:end], "stop"
    if len(ids) > request.max_tokens:
        return ids[: request.max_tokens], "length"
    return ids, said


def _has(text: str, stop: Sequence[str]) -> bool:
    return any(end in text for end in stop)


def _read(data: object) -> _Told:
    match data:
        case {"choices": [dict() as first, *_]}:
            choice = cast(dict[str, Any], first)
        case _:
            raise EngineError("an answer without choices")
    whole = cast(dict[str, Any], data)
    usage = whole.get("usage")
    token_ids, logprobs = _tokens(choice)
    prompt_ids = choice.get("prompt_token_ids") or whole.get("prompt_token_ids")
    return _Told(
        text=_text(choice),
        finish_reason=_finish_reason(choice.get("finish_reason")),
        token_ids=token_ids,
        logprobs=logprobs,
        prompt_ids=_ints(prompt_ids),
        num_tokens=usage.get("completion_tokens") if isinstance(usage, dict) else None,
    )


def _text(choice: Mapping[str, Any]) -> str:
    match choice:
        case {"text": str(text)}:
            return text
        case {"message": {"reasoning_content": str(thought), "content": content}} if thought:
            return _with_state(thought, content)
        case {"message": {"reasoning": str(thought), "content": content}} if thought:
            return _with_state(thought, content)
        case {"message": {"content": str(text)}}:
            return text
    raise EngineError("an answer without text")


def _with_state(thought: str, content: object) -> str:
    """Undo what reasoning parsers do: they take the internal state, with its tags, out of it."""
    opened = f"{open_tag(STATE_TAG)}{thought}"
    if not isinstance(content, str) or not content:
        return opened
    return content if open_tag(STATE_TAG) in content else opened + close_tag(STATE_TAG) + content


def _finish_reason(value: object) -> FinishReason:
    if value in ("stop", "length"):
        return cast(FinishReason, value)
    raise EngineError(f"sampling ended with finish_reason {value!r}")


def _tokens(choice: Mapping[str, Any]) -> tuple[tuple[int, ...] | None, tuple[float, ...] | None]:
    """Sampled ids and their log-probabilities, from wherever the server puts them."""
    match choice.get("logprobs"):
        case {"content": [*entries]} if all(isinstance(entry, dict) for entry in entries):
            names = [entry.get("id", entry.get("token")) for entry in entries]
            values = [entry.get("logprob") for entry in entries]
        case {"tokens": [*names], "token_logprobs": [*values]}:
            pass
        case _:
            names, values = None, []
    ids = _ints(choice.get("token_ids"))
    if ids is None:
        ids = _ints(None if names is None else [_named_id(name) for name in names])
    if ids is None or len(values) != len(ids) or not all(map(_is_logprob, values)):
        return ids, None
    return ids, tuple(float(value) for value in values)


def _named_id(name: object) -> object:
    """The id in `token_id:123`."""
    if isinstance(name, str) and name.startswith("token_id:"):
        digits = name.removeprefix("token_id:")
        return int(digits) if digits.isdecimal() else None
    return name


def _ints(values: object) -> tuple[int, ...] | None:
    if not isinstance(values, list):
        return None
    whole = all(isinstance(value, int) and value >= 0 for value in values)
    return tuple(values) if whole else None


def _is_logprob(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
