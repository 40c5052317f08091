"""A RETRIEVER -> A SERVER with the `/retrieve` wire API that Search-R1 and its relatives share.

    POST /retrieve {"queries": […], "topk": k, "return_scores": bool}
      -> {"result": [[{"document": {"id", "contents"}, "score"}, …], …]}, a list for each query;
         without scores each entry is the document itself
    GET /health    {"status": "ok", "passages": n}
    GET /openapi.json, and a page for people at /

What is wrong with a request is told with a 4xx and {"error": …}; a retriever that can't answer,
with 503. Nothing of a request is repeated in an answer.
"""

import asyncio
import json
import socket
from collections.abc import Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from mem1.errors import ToolError
from mem1.serve.page import page
from mem1.serving import Guard, guard_of, install, run_server
from mem1.tools import Passage, Retriever

if TYPE_CHECKING:
    from fastapi import FastAPI, Request, Response

COMMAND = "mem1 serve retriever"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The most that one request may ask for."""

    queries: int = 4096
    """Search-R1 sends those of a whole training batch at once."""
    topk: int = 100
    passages: int = 50_000
    """Queries times topk: what is held to answer."""
    query_chars: int = 20_000
    body_bytes: int = 8 << 20
    body_s: float = 30.0
    """Seconds until the last byte of a body."""


class Document(BaseModel):
    """A passage in the FlashRAG form."""

    id: str
    contents: str = Field(description="The title in quotes, a line end, the text.")


class Hit(BaseModel):
    """A passage and how well it fits."""

    document: Document
    score: float = Field(description="Higher is better; the scale is the retriever's own.")


class Found(BaseModel):
    """For each query its passages, best first; `Document`s where no scores were asked for."""

    result: list[list[Hit | Document]]


class Refusal(BaseModel):
    """Why there's no answer."""

    error: str


class _RefusedError(Exception):
    """A request that gets no answer. Args: HTTP status, why."""


def serve(
    retriever: Retriever,
    *,
    at: socket.socket,
    token: str | None = None,
    top_k: int = 3,
    limits: Limits | None = None,
) -> None:
    """Serve until interrupted. Args: `token`, without which nobody is answered; needed wherever
    others can reach the socket (ConfigError); others as in `make_app`."""
    guard = guard_of(at, command=COMMAND, token=token)
    run_server(make_app(retriever, guard=guard, top_k=top_k, limits=limits), at=at)


def make_app(
    retriever: Retriever,
    *,
    guard: Guard | None = None,
    top_k: int = 3,
    limits: Limits | None = None,
) -> "FastAPI":
    """The server's application.

    Args: `guard`, None: whoever asks by a loopback name; `top_k`, for requests without `topk`;
    `limits`, None: the default ones.
    """
    from fastapi import FastAPI, Request, Response
    from starlette.exceptions import HTTPException

    limits = limits or Limits()
    asked_model = _asked_model(limits, top_k=top_k)
    app = FastAPI(title="mem1 retriever", version="1", docs_url=None, redoc_url=None)
    install(guard or Guard(command=COMMAND), app, headers=HEADERS)

    @app.post(
        "/retrieve",
        response_model=Found,
        responses={status: {"model": Refusal} for status in (400, 408, 413, 422, 503)},
        openapi_extra={"requestBody": _body_schema(asked_model)},
    )
    async def retrieve(request: Request) -> Response:
        """Find passages for each query."""
        try:
            asked = _parsed(await _body(request, limits), asked_model)
            topk = asked.topk or top_k
            _check_size(len(asked.queries) * topk, limits)
        except _RefusedError as refusal:
            status, why = refusal.args
            return _json({"error": why}, status)
        try:
            searches = (retriever.search(query, top_k=topk) for query in asked.queries)
            found = await asyncio.gather(*searches)
        except ToolError as error:
            return _json({"error": f"the retriever can't answer: {error}"}, 503)
        show = _hit if asked.return_scores else _document
        return _json({"result": [[show(passage) for passage in passages] for passages in found]})

    @app.get("/health")
    async def health() -> Response:
        """Answers once the index is open; `passages` is null where their number isn't known."""
        known = len(retriever) if isinstance(retriever, Sized) else None
        return _json({"status": "ok", "passages": known})

    @app.exception_handler(HTTPException)
    async def nothing_here(_request: Request, error: HTTPException) -> Response:
        answer = _json({"error": error.detail}, error.status_code)
        answer.headers.update(error.headers or {})
        return answer

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def people() -> Response:
        return Response(page(app.openapi()), media_type="text/html; charset=utf-8")

    return app


def _asked_model(limits: Limits, *, top_k: int) -> type[Any]:
    """What `/retrieve` takes; says its own limits in the schema. Other fields are passed over."""

    class Asked(BaseModel):
        model_config = ConfigDict(strict=True)

        queries: list[
            Annotated[str, Field(max_length=limits.query_chars), BeforeValidator(_whole)]
        ] = Field(max_length=limits.queries)
        topk: Annotated[
            Annotated[int, Field(ge=1, le=limits.topk)] | None, BeforeValidator(_integer)
        ] = Field(default=None, description=f"How many for each query; null: {top_k}.")
        return_scores: bool = False

    return Asked


def _whole(value: Any) -> Any:
    """Half a surrogate pair, which a model may sample and JSON can say, becomes `?`."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _integer(value: Any) -> Any:
    """In JSON, 3.0 is an integer too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _body_schema(asked_model: type[BaseModel]) -> dict[str, Any]:
    schema = asked_model.model_json_schema()
    return {"required": True, "content": {"application/json": {"schema": schema}}}


async def _body(request: "Request", limits: Limits) -> bytes:
    """All of a request's body. Raises: _RefusedError for one too long or too slow."""
    from starlette.requests import ClientDisconnect

    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_s):
            async for part in request.stream():
                body += part
                if len(body) > limits.body_bytes:
                    raise _RefusedError(413, f"the body has more than {limits.body_bytes} bytes")
    except TimeoutError as error:
        raise _RefusedError(408, f"the body took more than {limits.body_s} s") from error
    except ClientDisconnect as error:
        raise _RefusedError(400, "the body broke off") from error
    return bytes(body)


def _parsed(body: bytes, asked_model: type[Any]) -> Any:
    """What is asked. Raises: _RefusedError saying which field is wrong, and how."""
    try:
        record = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _RefusedError(400, "the body is no JSON (in UTF-8, not too deep)") from error
    try:
        asked = asked_model.model_validate(record)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise _RefusedError(422, f"{where}: {first['msg']}") from error
    return asked


def _check_size(count: int, limits: Limits) -> None:
    if count > limits.passages:
        why = f"queries × topk is {count}, more than {limits.passages}: send fewer queries at once"
        raise _RefusedError(422, why)


def _hit(passage: Passage) -> dict[str, Any]:
    return {"document": _document(passage), "score": float(passage.score)}


def _document(passage: Passage) -> dict[str, str]:
    """In the form that `Passage.of_contents` reads: a single line is text without a title."""
    if passage.title or "\n" in passage.text:
        return {"id": passage.id, "contents": f'"{passage.title}"\n{passage.text}'}
    return {"id": passage.id, "contents": passage.text}


def _json(answer: Any, status: int = 200) -> "Response":
    from fastapi import Response

    return Response(orjson.dumps(answer), status, media_type="application/json")
