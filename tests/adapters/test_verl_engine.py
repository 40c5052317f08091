"""Exact ids and log-probabilities of whatever samples behind verl's client."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("transformers")

from mem1.adapters.verl.engine import ServerEngine
from mem1.chat.hf import HFRenderer
from mem1.engines import Carry, Request
from mem1.errors import ConfigError, EngineError
from mem1.types import Sampling

RENDERER = HFRenderer.load(Path("data/ledger/internal_state"))
STOP = ("</search>",)
SAID = RENDERER.encode("<think>vapu 169</think><search>vati</search>")
(EOS,) = RENDERER.eos_ids


class Client:
    """Answers with given ids, as verl's `LLMServerClient` does."""

    def __init__(self, *token_ids: int, stop_reason: str = "completed", told: bool = True) -> None:
        logprobs = [-0.25 * n for n in range(len(token_ids))] if told else None
        self.answer = SimpleNamespace(
            token_ids=list(token_ids),
            log_probs=logprobs,
            stop_reason=stop_reason,
            extra_fields={"global_steps": 3},
        )

    async def generate(self, **asked: object) -> SimpleNamespace:
        self.asked = asked
        return self.answer


def engine(client: Client) -> ServerEngine:
    settings = {"temperature": 0, "top_k": -1, "repetition_penalty": 1.0, "logprobs": True}
    return ServerEngine(
        client=client, renderer=RENDERER, window=99, settings=settings, session="episode"
    )


def request(*, max_tokens: int = 40, carry: Carry | None = None) -> Request:
    return Request(
        prompt_ids=(5, 6, 7),
        messages=(),
        max_tokens=max_tokens,
        stop=STOP,
        sampling=Sampling(temperature=0.7, top_p=0.9),
        carry=carry,
    )


def complete(client: Client, **changes):
    return asyncio.run(engine(client).complete(request(**changes)))


def test_the_server_is_asked_for_one_episode_in_its_own_words():
    client = Client(*SAID)
    complete(client)
    assert client.asked == {
        "request_id": "episode",
        "prompt_ids": [5, 6, 7],
        "sampling_params": {
            "temperature": 0.7,
            "top_p": 0.9,
            "top_k": -1,
            "repetition_penalty": 1.0,
            "max_tokens": 40,
            "stop": ["</search>"],
            "include_stop_str_in_output": True,
            "skip_special_tokens": False,
            "spaces_between_special_tokens": False,
            "stop_token_ids": [EOS],
            "logprobs": True,
        },
    }


def test_ids_and_logprobs_are_the_servers_own():
    found = complete(Client(*SAID))
    assert found.token_ids == SAID
    assert found.logprobs == tuple(-0.25 * n for n in range(len(SAID)))
    assert (found.finish_reason, found.exact, found.temperature) == ("stop", True, 0.7)


def test_what_was_sampled_behind_the_stop_string_is_cut_with_its_logprobs():
    found = complete(Client(*SAID, 9, 9))
    assert (found.token_ids, found.finish_reason) == (SAID, "stop")
    assert found.logprobs is not None
    assert len(found.logprobs) == len(SAID)


def test_the_end_of_sequence_is_kept_as_a_token_and_not_as_text():
    found = complete(Client(*SAID[:4], EOS))
    assert found.token_ids == (*SAID[:4], EOS)
    assert found.text == RENDERER.decode(SAID[:4])
    assert found.finish_reason == "stop"


def test_a_reply_that_fills_its_cap_ended_for_length():
    assert complete(Client(*SAID[:4]), max_tokens=4).finish_reason == "length"


def test_the_weights_that_sampled_are_noted():
    asked = engine(Client(*SAID))
    asyncio.run(asked.complete(request()))
    assert asked.versions == [3]


@pytest.mark.parametrize(
    ("client", "said"),
    [
        (Client(stop_reason="aborted"), "sampled nothing: aborted"),
        (Client(*SAID, told=False), "tells no log-probabilities"),
    ],
)
def test_a_server_that_does_not_tell_is_an_error_and_no_reply(client, said):
    with pytest.raises(EngineError, match=said):
        complete(client)


def test_no_server_carries():
    with pytest.raises(ConfigError, match="mode = 'carry'"):
        complete(Client(*SAID), carry=Carry(episode="e", kept=(), start=0))
