"""What servers answer and what becomes of it: exact, inexact, or an EngineError; never a lie."""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import (
    LISTED,
    MODEL,
    Answer,
    EndingBytes,
    Server,
    always,
    first,
    plain,
    refusing,
    serve,
    vllm,
)

from mem1.engines import Engine, Request
from mem1.engines.openai import OpenAIConfig, OpenAIEngine, retry_after
from mem1.engines.openai_wire import FORMS, read_completion
from mem1.errors import ConfigError, EngineError, ModelError
from mem1.types import Completion, Message, Sampling

CODEC = EndingBytes()
REPLY = "<search>x</search>"
REQUEST = Request(
    prompt_ids=CODEC.encode("Hi: "),
    messages=(Message(role="user", content="Hi"),),
    max_tokens=64,
    stop=("</search>", "</answer>"),
    sampling=Sampling(temperature=0.5, seed=7),
)
OK = vllm(REPLY)


def config(url: str, **changes: Any) -> OpenAIConfig:
    return replace(OpenAIConfig(base_url=url, model=MODEL, retries=0, timeout_s=5), **changes)


def ask(server: Server, *requests: Request, **changes: Any) -> list[Completion]:
    """The completions of requests sent one after the other by one engine."""

    async def all_of_them() -> list[Completion]:
        engine = OpenAIEngine(config(server.url, **changes), codec=CODEC)
        try:
            return [await engine.complete(request) for request in requests or (REQUEST,)]
        finally:
            await engine.close()

    return asyncio.run(all_of_them())


def reply_of(behaviour, request: Request = REQUEST, **changes: Any) -> Completion:
    with serve(behaviour) as server:
        return ask(server, request, **changes)[0]


def exact(text: str, *, end: tuple[int, ...] = (), finish_reason: Any = "stop") -> Completion:
    ids = (*text.encode(), *end)
    return Completion(
        token_ids=ids,
        logprobs=(-0.5,) * len(ids),
        temperature=1.0,
        text=text,
        finish_reason=finish_reason,
    )


def inexact(text: str, *, finish_reason: Any = "stop") -> Completion:
    return Completion(
        token_ids=CODEC.encode(text),
        logprobs=None,
        temperature=0.5,
        text=text,
        finish_reason=finish_reason,
        exact=False,
    )


def test_a_server_that_tells_ids_and_logprobs_is_exact():
    with serve(OK) as server:
        assert ask(server) == [exact(REPLY)]
    body = server.bodies[0]
    assert body["prompt"] == list(REQUEST.prompt_ids)
    assert (body["max_tokens"], body["stop"], body["seed"]) == (64, list(REQUEST.stop), 7)
    assert (body["temperature"], body["top_p"], body["top_k"]) == (0.5, 1.0, -1)


def test_the_end_of_sequence_token_is_among_the_ids_and_not_in_the_text():
    behaviour = vllm("I give up", end=(CODEC.END,))
    assert reply_of(behaviour) == exact("I give up", end=(CODEC.END,))


def test_a_reply_of_the_greatest_length_is_exact_and_says_so():
    request = replace(REQUEST, max_tokens=8)
    assert reply_of(OK, request) == exact("<search>", finish_reason="length")


def test_ids_named_in_the_logprobs_count_as_the_servers_own():
    assert reply_of(vllm(REPLY, token_ids=None)) == exact(REPLY)


def test_ids_inside_the_entries_of_logprobs_count_as_the_servers_own():
    entries = [{"id": i, "token": chr(i), "logprob": -0.5} for i in REPLY.encode()]
    assert reply_of(vllm(REPLY, token_ids=None, logprobs={"content": entries})) == exact(REPLY)


def test_sglang_tells_logprobs_at_the_sampling_temperature():
    def sglang(path: str, body: dict[str, Any]) -> Answer:
        listed = {"data": [LISTED | {"owned_by": "sglang"}]}
        return Answer(content=listed) if path == "/models" else OK(path, body)

    async def connected(url: str) -> Completion:
        engine = await OpenAIEngine.connect(config(url), codec=CODEC)
        return await engine.complete(REQUEST)

    with serve(sglang) as server:
        assert asyncio.run(connected(server.url)) == replace(exact(REPLY), temperature=0.5)


@pytest.mark.parametrize(
    "logprobs", [None, {"tokens": [], "token_logprobs": []}, {"content": [7]}, "none"]
)
def test_ids_without_logprobs_are_inexact(logprobs):
    assert reply_of(vllm(REPLY, logprobs=logprobs)) == inexact(REPLY)


def test_a_missing_logprob_makes_all_of_them_missing():
    values = [-0.5] * (len(REPLY) - 1) + [None]
    told = {"tokens": list(REPLY), "token_logprobs": values}
    assert reply_of(vllm(REPLY, logprobs=told)) == inexact(REPLY)


def test_a_server_that_saw_another_prompt_is_inexact():
    got = reply_of(vllm(REPLY, prompt_token_ids=[1, *REQUEST.prompt_ids]))
    assert got == replace(exact(REPLY), exact=False)


def test_ids_that_our_codec_reads_otherwise_are_not_used():
    assert reply_of(vllm(REPLY, token_ids=[7, 8, 9])) == inexact(REPLY)


def test_ids_without_the_stop_string_get_it_back_and_are_inexact():
    trimmed = "<search>x"
    behaviour = vllm(trimmed, token_ids=list(trimmed.encode()))
    assert reply_of(behaviour) == inexact(REPLY)


class LongEnd(EndingBytes):
    """Has a token for `>` with what follows it."""

    def decode(self, token_ids: Iterable[int]) -> str:
        return "".join(">." if i == 300 else super(LongEnd, self).decode([i]) for i in token_ids)


def test_a_token_that_goes_on_behind_the_stop_string_is_kept_whole():
    ids = (*REPLY[:-1].encode(), 300)
    names = {"tokens": [f"token_id:{i}" for i in ids], "token_logprobs": [-0.5] * len(ids)}
    choice = {"text": REPLY, "finish_reason": "stop", "token_ids": [*ids], "logprobs": names}
    form = FORMS["completions"][0]
    got = read_completion({"choices": [choice]}, request=REQUEST, form=form, codec=LongEnd())
    assert got == replace(exact(f"{REPLY}."), token_ids=ids, logprobs=(-0.5,) * len(ids))


def test_ids_fewer_than_the_server_counted_are_inexact():
    rest = REPLY[1:]
    logprobs = {"tokens": list(rest), "token_logprobs": [-0.5] * len(rest)}
    told = vllm(REPLY, token_ids=list(rest.encode()), text=rest, logprobs=logprobs)
    assert reply_of(told) == inexact(rest)


@pytest.mark.parametrize("mode", ["completions", "chat"])
def test_text_alone_is_inexact_and_gets_its_stop_string_back(mode):
    assert reply_of(plain("<search>x"), mode=mode) == inexact(REPLY)


@pytest.mark.parametrize("mode", ["completions", "chat"])
def test_nothing_at_all_is_a_reply_of_no_tokens(mode):
    assert reply_of(plain(""), mode=mode) == inexact("")


def test_a_reply_cut_for_length_gets_no_closing_tag():
    assert reply_of(plain("<search>x", "length")) == inexact("<search>x", finish_reason="length")


def test_a_server_that_ignores_stop_strings_is_cut_at_the_first():
    def ignores_stop(path: str, body: dict[str, Any]) -> Answer:
        return vllm(f"{REPLY} and <answer>y</answer>")(path, body | {"stop": []})

    assert reply_of(ignores_stop) == exact(REPLY)


def test_a_server_that_ignores_the_limit_is_cut_there():
    request = replace(REQUEST, max_tokens=4)
    assert reply_of(plain(REPLY), request) == inexact(REPLY[:4], finish_reason="length")


def test_fields_a_server_refuses_are_left_out_from_then_on():
    with serve(refusing(lambda body: "return_token_ids" in body, OK)) as server:
        assert ask(server, REQUEST, REQUEST) == [inexact(REPLY)] * 2
    assert ["top_k" in body for body in server.bodies] == [True, False, False]


def test_a_server_that_refuses_token_ids_gets_text():
    with serve(refusing(lambda body: not isinstance(body["prompt"], str), OK)) as server:
        assert ask(server, REQUEST, REQUEST) == [inexact(REPLY)] * 2
    assert [body["prompt"] for body in server.bodies[2:]] == ["Hi: "] * 2


def test_what_no_form_helps_against_is_raised_and_not_remembered():
    too_long = replace(REQUEST, prompt_ids=REQUEST.prompt_ids * 9)
    with serve(refusing(lambda body: len(body["prompt"]) > 9, OK)) as server:

        async def both() -> Completion:
            engine = OpenAIEngine(config(server.url), codec=CODEC)
            with pytest.raises(EngineError, match=r"HTTP 400.*I refuse"):
                await engine.complete(too_long)
            return await engine.complete(REQUEST)

        assert asyncio.run(both()) == exact(REPLY)


def test_hosted_models_get_their_own_name_of_the_limit():
    with serve(refusing(lambda body: "max_tokens" in body, plain(REPLY))) as server:
        assert ask(server, mode="chat") == [inexact(REPLY)]
    assert server.bodies[-1] == {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Hi"}],
        "max_completion_tokens": 64,
        "temperature": 0.5,
        "top_p": 1.0,
        "stop": list(REQUEST.stop),
        "seed": 7,
    }


def test_hosted_models_without_stop_and_seed_still_get_the_temperature():
    with serve(refusing(lambda body: "stop" in body, plain(f"{REPLY}!"))) as server:
        assert ask(server, mode="chat") == [inexact(REPLY)]
    assert server.bodies[-1] == {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Hi"}],
        "max_completion_tokens": 64,
        "temperature": 0.5,
    }


def test_a_temperature_that_is_refused_is_an_error_and_never_dropped():
    with serve(refusing(lambda body: "temperature" in body, plain(REPLY))) as server:
        with pytest.raises(EngineError, match="I refuse"):
            ask(server, mode="chat")
        assert ask(server, replace(REQUEST, sampling=Sampling()), mode="chat")


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_an_internal_state_that_a_reasoning_parser_took_out_is_put_back(field):
    message = {field: "a", "content": "\n<answer>b"}
    choice = {"message": message, "finish_reason": "stop"}
    behaviour = always(Answer(content={"choices": [choice]}))
    assert reply_of(behaviour, mode="chat").text == "<think>a</think>\n<answer>b</answer>"


def test_a_busy_server_is_asked_again_when_it_says():
    busy = Answer(status=429, headers={"Retry-After": "2"}, content={"error": "busy"})
    with serve(first(busy, then=OK)) as server:
        started = time.perf_counter()
        assert ask(server, retries=1) == [exact(REPLY)]
    assert time.perf_counter() - started >= 2.0, "our own backoff is 1.5 s at most"


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        ("3", 3.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 0.0),
        ("soon", None),
        ("-1", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header, wait_s):
    assert retry_after(header) == wait_s


@pytest.mark.parametrize("year", [1999, 2099])
def test_a_date_to_wait_for_is_told_by_the_servers_clock_not_ours(year):
    at = f"Wed, 21 Oct {year} 07:28"
    assert retry_after(f"{at}:30 GMT", now=f"{at}:10 GMT") == 20


@pytest.mark.parametrize(
    "bad",
    [Answer(status=500), Answer(content={"choices": []}, cut=True), Answer(content={}, delay_s=9)],
)
def test_a_server_that_failed_once_is_asked_again(bad):
    with serve(first(bad, then=OK)) as server:
        assert ask(server, retries=1, timeout_s=1) == [exact(REPLY)]
    assert len(server.bodies) == 2


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_cannot_get_better_is_not_asked_again(status):
    with (
        serve(always(Answer(status=status, content="no"))) as server,
        pytest.raises(EngineError, match=f"HTTP {status}"),
    ):
        ask(server, retries=3)
    assert len(server.bodies) == 1


def choices(**changes: object) -> Answer:
    return Answer(content={"choices": [{"text": "a", "finish_reason": "stop"} | changes]})


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer(content=b"<html>Sign in</html>"), "HTTP 200, but not JSON.*Sign in"),
        (Answer(content=b""), "an answer without choices"),
        (Answer(content=b"\xff\xfe{"), "not JSON"),
        (Answer(content={"error": {"message": "out of memory"}}), "an error.*out of memory"),
        (Answer(content={}), "without choices"),
        (Answer(content=[]), "without choices"),
        (Answer(content={"choices": []}), "without choices"),
        (Answer(content={"choices": [None]}), "without choices"),
        (choices(text=None), "without text"),
        (choices(text=["a"]), "without text"),
        (choices(finish_reason=None), "finish_reason None"),
        (choices(finish_reason="content_filter"), "finish_reason 'content_filter'"),
        (Answer(status=500, content="oops"), "HTTP 500.*oops"),
        (Answer(content={"choices": []}, cut=True), "RemoteProtocolError"),
        (Answer(content={}, delay_s=9), r"no answer within 0\.5 s"),
    ],
)
def test_what_is_not_a_completion_is_an_error_and_never_text(answer, message):
    with pytest.raises(EngineError, match=message):
        reply_of(always(answer), timeout_s=0.5 if answer.delay_s else 5)


def test_a_status_inside_a_success_is_that_status():
    inner = Answer(content={"error": {"code": 502, "message": "behind me all is dark"}})
    with serve(first(inner, then=OK)) as server:
        assert ask(server, retries=1) == [exact(REPLY)]


def test_a_server_that_is_down_is_an_error():
    with serve(OK) as server:
        pass
    with pytest.raises(EngineError, match="ConnectError"):
        ask(server)
    with pytest.raises(EngineError, match="ConnectError"):
        asyncio.run(OpenAIEngine.connect(config(server.url), codec=CODEC))


FIELDS = (
    "choices text message content finish_reason token_ids logprobs tokens token_logprobs "
    "prompt_token_ids usage completion_tokens reasoning id token logprob"
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["stop", "a"])
json_values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(FIELDS.split()), inner, max_size=6)
    ),
    max_leaves=30,
)


@given(choice=json_values, usage=json_values)
def test_any_json_is_a_completion_or_an_engine_error(choice, usage):
    base = {"text": "a", "finish_reason": "stop"}
    data = {"choices": [base | choice if isinstance(choice, dict) else choice], "usage": usage}
    try:
        got = read_completion(data, request=REQUEST, form=FORMS["completions"][0], codec=CODEC)
    except EngineError:
        return
    assert got.num_tokens <= REQUEST.max_tokens
    assert got.logprobs is None or len(got.logprobs) == got.num_tokens


def test_the_key_is_sent_and_never_told(monkeypatch):
    monkeypatch.setenv("SOME_KEY", "sk-secret")
    echo = Answer(status=401, content={"error": "sk-secret is wrong"})
    with serve(always(echo)) as server, pytest.raises(EngineError) as caught:
        ask(server, api_key_env="SOME_KEY")
    assert server.headers[0]["Authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in str(caught.value)
    assert "SOME_KEY" in str(caught.value)


def test_no_more_requests_are_in_flight_than_allowed():
    async def many(url: str) -> None:
        engine = OpenAIEngine(config(url, concurrency=2), codec=CODEC)
        await asyncio.gather(*(engine.complete(REQUEST) for _ in range(6)))

    def slow(path: str, body: dict[str, Any]) -> Answer:
        return replace(OK(path, body), delay_s=0.05)

    with serve(slow) as server:
        asyncio.run(many(server.url))
    assert (len(server.bodies), server.most_in_flight) == (6, 2)


def connect(server: Server, **changes: Any) -> OpenAIEngine:
    return asyncio.run(OpenAIEngine.connect(config(server.url, **changes), codec=CODEC))


@pytest.mark.parametrize(
    ("entry", "window"),
    [
        ({"max_model_len": 512}, 512),
        ({"context_length": 512}, 512),
        ({"meta": {"n_ctx": 512, "n_ctx_train": 2048}}, 512),
        ({"max_model_len": "512"}, None),
        ({}, None),
    ],
)
def test_the_window_is_what_the_server_says(entry, window):
    with serve(always(Answer(content={"data": [{"id": MODEL, **entry}]}))) as server:
        engine = connect(server)
        assert isinstance(engine, Engine)
        assert (engine.window, connect(server, window=99).window) == (window, 99)


def test_a_model_that_the_server_lacks_is_refused_with_those_it_has():
    def others(path: str, _body: dict[str, Any]) -> Answer:
        listed = {"data": [{"id": "owl"}, {"id": "crow"}]}
        return Answer(content=listed) if path == "/models" else Answer(status=404, content="no")

    with serve(others) as server, pytest.raises(ModelError, match=r"'parrot'; it has: crow, owl\."):
        connect(server)


@pytest.mark.parametrize("listing", [Answer(status=500), Answer(content={"data": []})])
def test_a_server_that_fails_to_list_its_models_is_tried_instead(listing):
    def unlisted(path: str, body: dict[str, Any]) -> Answer:
        return listing if path == "/models" else OK(path, body)

    with serve(unlisted) as server:
        assert connect(server).window is None
    assert [body["max_tokens"] for body in server.bodies] == [1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_url": "localhost:8000"}, "give it as http"),
        ({"base_url": "ftp://host/v1"}, "give it as http"),
        ({"base_url": "http://"}, "give it as http"),
        ({"base_url": "http://host/v1?key=1"}, "give it as http"),
        ({"base_url": "http://me:pw@host/v1"}, "holds a password"),
        ({"concurrency": 0}, "concurrency 0"),
        ({"timeout_s": 0}, "timeout_s 0"),
        ({"retries": -1}, "retries -1"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(changes, message):
    with pytest.raises(ConfigError, match=message):
        OpenAIEngine(config("http://host/v1", **changes), codec=CODEC)
