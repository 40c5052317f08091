"""What a server must be to be sampled from, and what is said of one that isn't."""

import asyncio
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
import standin  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from standin import Standin, running  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from mem1.chat.hf import HFRenderer  # noqa: E402
from mem1.engines import Request  # noqa: E402
from mem1.engines.vllm import VLLMEngine  # noqa: E402
from mem1.engines.vllm.config import VLLMConfig  # noqa: E402
from mem1.errors import ConfigError, EngineError, ModelError  # noqa: E402
from mem1.train.tiny import make_tiny  # noqa: E402
from mem1.types import Completion, Sampling  # noqa: E402


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    make_tiny(folder, seed=0, hidden=16, layers=1)
    return folder


def ask(prompt_ids: tuple[int, ...], **settings: Any) -> Request:
    request = Request(
        prompt_ids=prompt_ids,
        messages=(),
        max_tokens=8,
        stop=(),
        sampling=Sampling(temperature=1.0, seed=1),
    )
    return replace(request, **settings)


async def opened(config: VLLMConfig, **settings: Any) -> VLLMEngine:
    renderer = HFRenderer.load(Path(config.model))
    return await VLLMEngine.open(config, codec=renderer, eos_ids=renderer.eos_ids, **settings)


def sampled(config: VLLMConfig, *requests: Request) -> list[Completion]:
    async def run() -> list[Completion]:
        engine = await opened(config)
        try:
            return await asyncio.gather(*map(engine.complete, requests))
        finally:
            await engine.close()

    return asyncio.run(run())


def refusal(config: VLLMConfig, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sampled(config, ask((1, 2, 3)))


def test_a_running_server_is_sampled_from_exactly(tiny):
    with running(Standin(tiny)) as url:
        (got,) = sampled(VLLMConfig(model=str(tiny), urls=(url,)), ask((1, 2, 3)))
    assert (got.exact, got.num_tokens, got.temperature) == (True, 8, 1.0)


def test_a_url_may_end_in_v1(tiny):
    with running(Standin(tiny)) as url:
        assert sampled(VLLMConfig(model=str(tiny), urls=(f"{url}/v1/",)), ask((1, 2)))


def test_a_reply_ends_with_the_token_that_ends_a_turn(tiny):
    end = HFRenderer.load(tiny).eos_ids[0]
    server = Standin(tiny)
    with torch.no_grad():
        server.model.get_input_embeddings().weight[end] = 1.0
    server.model.config.eos_token_id = None
    with running(server) as url:
        seeds = [Sampling(temperature=1.0, seed=seed) for seed in range(16)]
        requests = [ask((1, 2, n), sampling=it) for n, it in enumerate(seeds)]
        replies = sampled(VLLMConfig(model=str(tiny), urls=(url,)), *requests)
    ended = [reply for reply in replies if reply.finish_reason == "stop"]
    assert {reply.token_ids[-1] for reply in ended} == {end}
    assert all(reply.exact for reply in replies)


def started(tiny: Path, work_dir: Path) -> VLLMConfig:
    return VLLMConfig(
        model=str(tiny),
        command=(sys.executable, standin.__file__, "serve"),
        work_dir=str(work_dir),
        start_timeout_s=60,
        retries=0,
    )


def test_a_server_of_our_own_is_started_sampled_from_and_ended(tiny, tmp_path):
    async def run() -> tuple[Completion, Any]:
        engine = await opened(started(tiny, tmp_path))
        (replica,) = engine._replicas
        try:
            return await engine.complete(ask((1, 2, 3))), replica.server
        finally:
            await engine.close()

    got, server = asyncio.run(run())
    assert got.exact
    assert not server.running
    assert list(tmp_path.iterdir()) == []


def test_a_server_of_our_own_that_dies_is_told_with_its_log(tiny, tmp_path):
    async def run() -> None:
        engine = await opened(started(tiny, tmp_path))
        (replica,) = engine._replicas
        assert replica.server is not None
        replica.server.stop()
        try:
            await engine.complete(ask((1, 2, 3)))
        finally:
            await engine.close()

    with pytest.raises(EngineError, match=r"vLLM server 0 ended; its log .*vllm-0.log ends:"):
        asyncio.run(run())
    assert len(list(tmp_path.rglob("vllm-0.log"))) == 1


def test_a_server_that_is_lost_leaves_its_requests_to_the_others(tiny, caplog):
    asks = [ask((1, 2, n)) for n in range(20)]

    async def run(url: str, lost: ExitStack) -> list[Completion]:
        other = lost.enter_context(running(Standin(tiny)))
        config = VLLMConfig(model=str(tiny), urls=(other, url), retries=0)
        engine = await opened(config, weights=Trained(tiny))
        try:
            before = await asyncio.gather(*map(engine.complete, asks))
            await asyncio.to_thread(lost.close)
            assert await asyncio.gather(*map(engine.complete, asks)) == before
            engine.forget()
            return await asyncio.gather(*map(engine.complete, asks))
        finally:
            await engine.close()

    with running(Standin(tiny)) as url, ExitStack() as lost:
        found = asyncio.run(run(url, lost))
    assert all(reply.exact for reply in found)
    (record,) = caplog.records
    assert "is lost: " in record.getMessage()
    assert "goes on with the other 1" in record.getMessage()


def test_another_model_is_told_with_those_that_are_there(tiny):
    with running(Standin(tiny, name="other")) as url:
        config = VLLMConfig(model=str(tiny), urls=(url,), retries=0)
        refusal(config, ModelError, "can't sample from model .*; it has: other.*served_name")
        assert sampled(replace(config, served_name="other"), ask((1, 2, 3)))


def test_another_tokenizer_is_told(tiny, tmp_path):
    HFRenderer.load(tiny).save(tmp_path)
    tokens = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    ours = tokens.get_vocab()
    swapped = {ours["<think>"]: ours["</think>"], ours["</think>"]: ours["<think>"]}
    text = (tmp_path / "tokenizer.json").read_text()
    for old, new in swapped.items():
        name = tokens.id_to_token(old)
        text = text.replace(f'"{name}": {old}', f'"{name}": {new}')
    (tmp_path / "tokenizer.json").write_text(text)
    with running(Standin(tiny, tokenizer=tmp_path)) as url:
        config = VLLMConfig(model=str(tiny), urls=(url,))
        refusal(config, ModelError, "its tokenizer isn't that of engine.model")


def test_a_server_that_tells_no_ids_is_told(tiny):
    with running(Standin(tiny, tells_ids=False)) as url:
        config = VLLMConfig(model=str(tiny), urls=(url,))
        refusal(config, ModelError, "tells no token ids .* no vLLM of 0.10.2 or newer")


def test_no_server_is_told(tiny):
    config = VLLMConfig(model=str(tiny), urls=("http://127.0.0.1:9",), retries=0)
    refusal(config, EngineError, "http://127.0.0.1:9/v1/models: ConnectError")


class Trained:
    """Weights that a test changes by hand."""

    def __init__(self, folder: Path) -> None:
        self.standin = Standin(folder)
        self.written: list[Path] = []

    def write(self, folder: Path) -> None:
        self.written.append(folder)
        folder.mkdir()
        tensors = load_file(self.standin.folder / "model.safetensors")
        state = self.standin.model.state_dict()
        save_file(
            {name: state[name].contiguous() for name in tensors}, folder / "model.safetensors"
        )

    def logprobs(self, token_ids: tuple[int, ...]) -> list[float]:
        rows = self.standin.scored(tuple(token_ids))
        return [entry["logprob"] for row in rows for entry in row.values()]


def test_weights_go_to_the_servers_once_for_each_change_and_are_removed(tiny):
    trained = Trained(tiny)
    asks = [ask((1, 2, n)) for n in range(6)]

    async def run(url: str) -> list[list[Completion]]:
        engine = await opened(VLLMConfig(model=str(tiny), urls=(url,)), weights=trained)
        found = []
        for _ in range(2):
            found.append(await asyncio.gather(*map(engine.complete, asks)))
            with torch.no_grad():
                trained.standin.model.get_input_embeddings().weight.mul_(-1)
            engine.forget()
        found.append(await asyncio.gather(*map(engine.complete, asks)))
        assert len(trained.written) == 3
        assert not any(folder.exists() for folder in trained.written)
        await engine.close()
        return found

    with running(Standin(tiny)) as url:
        first, second, third = asyncio.run(run(url))
    assert first != second
    assert first == third


def test_a_server_that_refuses_weights_is_asked_once_however_many_episodes_wait(tiny):
    server = Standin(tiny, resets=False)

    async def run(url: str) -> list[Any]:
        engine = await opened(VLLMConfig(model=str(tiny), urls=(url,)), weights=Trained(tiny))
        asks = [engine.complete(ask((1, 2, n))) for n in range(6)]
        found = await asyncio.gather(*asks, return_exceptions=True)
        await engine.close()
        return found

    with running(server) as url:
        found = asyncio.run(run(url))
    assert {type(one) for one in found} == {ModelError}
    assert server.asked.count("/collective_rpc") == 1


def test_a_server_of_our_own_that_cant_load_weights_tells_its_log(tiny, tmp_path):
    class Lost(Trained):
        def write(self, folder: Path) -> None:
            pass

    async def run() -> None:
        engine = await opened(started(tiny, tmp_path), weights=Lost(tiny))
        try:
            await engine.complete(ask((1, 2, 3)))
        finally:
            await engine.close()

    with pytest.raises(ModelError, match=r"No such file or directory(?s:.*); its log .* ends:"):
        asyncio.run(run())
    assert len(list(tmp_path.rglob("vllm-0.log"))) == 1


def test_a_gap_that_grows_is_told_of(tiny, caplog):
    async def run(url: str) -> None:
        trained = Trained(tiny)
        engine = await opened(VLLMConfig(model=str(tiny), urls=(url,)), weights=trained)
        await engine.complete(ask((1, 2, 3)))
        assert not caplog.records
        with torch.no_grad():
            trained.standin.model.get_input_embeddings().weight[:40] *= 1.1
        engine.forget()
        await engine.complete(ask((1, 2, 3)))
        await engine.close()

    with running(Standin(tiny, deaf=True)) as url:
        asyncio.run(run(url))
    (record,) = caplog.records
    assert "part of the weights may not reach it" in record.getMessage()


def test_weights_arent_taken_while_requests_are_under_way(tiny):
    server = Standin(tiny)

    async def run(url: str) -> None:
        engine = await opened(VLLMConfig(model=str(tiny), urls=(url,)))
        server.awake.clear()
        reply = asyncio.create_task(engine.complete(ask((1, 2, 3))))
        await asyncio.sleep(0.1)
        with pytest.raises(EngineError, match="requests under way: 1"):
            engine.forget()
        server.awake.set()
        await reply
        engine.forget()
        await engine.close()

    with running(server) as url:
        asyncio.run(run(url))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"urls": ("http://a",), "devices": ("0",)}, "leave one of the two out"),
        ({"model": "m.gguf"}, "'m.gguf': servers load weights from a Hugging Face folder"),
        ({"command": ()}, "engine.command is empty"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        VLLMConfig(**({"model": "m"} | settings))
