"""A server that speaks as vLLM 0.32 does, over a small Hugging Face model on the CPU.

    python standin.py serve MODEL --host 127.0.0.1 --port 8000     as `vllm serve`
    running(Standin(MODEL)) -> its URL                             in a thread of this process

Real token ids, real log-probabilities, weights that are really loaded, and a prefix cache that goes
stale unless it's reset. Fields, statuses and texts are those that a vLLM 0.32.0 server on a CPU
gave (`benchmarks/vllm_cpu.py`). What isn't asked for by `mem1.engines.vllm` isn't there.
SGLang's dialect is that of its source, July 2026.
"""

import argparse
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from mem1.chat import ByteRenderer
from mem1.chat.hf import HFRenderer


@dataclass(eq=False)
class Standin:
    """What a server knows, and how it is wrong on purpose."""

    folder: Path
    name: str | None = None
    version: str = "0.32.0"
    dev_mode: bool = True
    sglang: bool = False
    """Speaks as SGLang does instead; from its source, not from a server."""
    tells_ids: bool = True
    processed: bool = False
    """`--logprobs-mode processed_logprobs`."""
    deaf: bool = False
    """Says that it has loaded weights, and hasn't."""
    resets: bool = True
    """Whether its prefix cache can be reset."""
    tokenizer: Path | None = None
    """Of another model."""
    asked: list[str] = field(default_factory=list)
    """Paths of all requests."""

    def __post_init__(self) -> None:
        self.name = self.name or str(self.folder)
        self.model = AutoModelForCausalLM.from_pretrained(str(self.folder), dtype=torch.float32)
        self.model.eval()
        tokens = self.tokenizer or self.folder
        self.codec = (
            HFRenderer.load(tokens) if (tokens / "tokenizer.json").exists() else ByteRenderer()
        )
        self.cache: dict[tuple[int, ...], Tensor] = {}
        self.lock = threading.Lock()
        self.awake = threading.Event()
        self.awake.set()

    def logits(self, ids: tuple[int, ...]) -> Tensor:
        """Of the token behind these, shape (V,): from the cache if a prompt began like this."""
        with self.lock:
            if ids not in self.cache:
                with torch.no_grad():
                    self.cache[ids] = self.model(torch.tensor([ids])).logits[0, -1]
            return self.cache[ids]

    def load(self, folder: str) -> None:
        """Weights of a folder in place; what was cached stays."""
        tensors = load_file(Path(folder) / "model.safetensors")
        own = self.model.state_dict()
        for name, tensor in tensors.items():
            if own[name].shape != tensor.shape:
                raise ValueError(f"size mismatch for {name}")
            if not self.deaf:
                own[name].copy_(tensor)

    def text(self, ids: list[int], *, stop: list[str]) -> str:
        text = self.codec.decode(ids)
        ends = [text.find(end) + len(end) for end in stop if end in text]
        return text[: min(ends)] if ends else text

    def generate(self, body: dict[str, Any]) -> dict[str, Any]:
        """A choice of `/v1/completions`."""
        prompt, stop = tuple(body["prompt"]), body.get("stop", [])
        window = self.model.config.max_position_embeddings
        most = min(body["max_tokens"], window - len(prompt))
        ends = {*body.get("stop_token_ids", []), self.model.config.eos_token_id}
        rng = torch.Generator().manual_seed(body.get("seed", 0))
        ids: list[int] = []
        values: list[float] = []
        tops: list[dict[str, float]] = []
        reason = "length"
        while len(ids) < most and reason == "length":
            told, drawn = self.draw(self.logits(prompt + tuple(ids)), body, rng=rng)
            ids.append(drawn)
            values.append(float(told[drawn]))
            top = told.topk(body.get("logprobs") or 1)
            pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
            tops.append({f"token_id:{token}": value for token, value in pairs})
            if drawn in ends or any(end in self.codec.decode(ids) for end in stop):
                reason = "stop"
        choice: dict[str, Any] = {"text": self.text(ids, stop=stop), "finish_reason": reason}
        if body.get("prompt_logprobs") is not None:
            choice["prompt_logprobs"] = [None, *self.scored(prompt)]
        if self.tells_ids and body.get("return_token_ids"):
            choice |= {"token_ids": ids, "prompt_token_ids": list(prompt)}
        if body.get("logprobs"):
            tokens = [f"token_id:{token}" for token in ids]
            choice["logprobs"] = {
                "tokens": tokens if self.tells_ids else [self.codec.decode([i]) for i in ids],
                "token_logprobs": values,
                "top_logprobs": tops,
            }
        return choice

    def draw(
        self, logits: Tensor, body: dict[str, Any], *, rng: torch.Generator
    ) -> tuple[Tensor, int]:
        """Log-probabilities as they are told, shape (V,), and the token that is sampled."""
        raw, temperature = logits.log_softmax(-1), body.get("temperature", 1.0)
        if temperature == 0:
            return raw, int(raw.argmax())
        scaled = (logits / temperature).log_softmax(-1)
        order = scaled.argsort(descending=True)
        before = scaled[order].exp().cumsum(-1) - scaled[order].exp()
        cut = scaled.clone()
        cut[order[before > body.get("top_p", 1.0)]] = -torch.inf
        cut = cut.log_softmax(-1)
        told = scaled if self.sglang else cut if self.processed else raw
        return told, int(torch.multinomial(cut.exp(), 1, generator=rng))

    def scored(self, prompt: tuple[int, ...]) -> list[dict[str, Any]]:
        """Prompt log-probabilities, which vLLM computes without its cache."""
        with self.lock, torch.no_grad():
            rows = self.model(torch.tensor([prompt])).logits[0].log_softmax(-1)
        pairs = zip(rows[:-1], prompt[1:], strict=True)
        return [{str(token): {"logprob": float(row[token])}} for row, token in pairs]


def error(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "code": status}}, status)


def make_app(server: Standin) -> FastAPI:
    app = FastAPI()

    @app.middleware("http")
    async def note(request: Request, respond):
        server.asked.append(request.url.path)
        return await respond(request)

    @app.get("/health")
    def health() -> Response:
        return Response()

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        window = server.model.config.max_position_embeddings
        owner = "sglang" if server.sglang else "vllm"
        card = {"id": server.name, "owned_by": owner, "root": server.name, "parent": None}
        return {"object": "list", "data": [card | {"max_model_len": window}]}

    @app.post("/detokenize")
    def detokenize(body: dict[str, Any]) -> dict[str, str]:
        text = server.codec.decode(body["tokens"])
        return {"text" if server.sglang else "prompt": text}

    @app.post("/v1/completions")
    def completions(body: dict[str, Any]) -> Any:
        server.awake.wait()
        if body["model"] != server.name:
            return error(404, f"The model `{body['model']}` does not exist.")
        if max(body["prompt"]) >= server.model.config.vocab_size:
            return error(400, f"Token id {max(body['prompt'])} is out of vocabulary")
        choice = server.generate(body)
        return {"object": "text_completion", "choices": [choice]}

    if server.sglang:
        add_sglang_routes(app, server)
        return app

    @app.get("/version")
    def version() -> dict[str, str]:
        return {"version": server.version}

    if server.dev_mode:
        add_dev_routes(app, server)
    return app


def add_sglang_routes(app: FastAPI, server: Standin) -> None:
    @app.post("/update_weights_from_disk")
    def update_weights_from_disk(body: dict[str, Any]) -> Any:
        try:
            server.load(body["model_path"])
        except (OSError, ValueError, KeyError) as problem:
            return JSONResponse({"success": False, "message": str(problem)}, 400)
        if body.get("flush_cache", True):
            server.cache.clear()
        return {"success": True, "message": "Succeeded to update model weights."}

    @app.post("/generate")
    def generate(body: dict[str, Any]) -> dict[str, Any]:
        assert body["return_logprob"]
        assert body["logprob_start_len"] == 0
        ids = body["input_ids"]
        values = [v["logprob"] for row in server.scored(tuple(ids)) for v in row.values()]
        told = [[value, token, None] for value, token in zip([None, *values], ids, strict=True)]
        return {"text": "", "meta_info": {"input_token_logprobs": told}}


def add_dev_routes(app: FastAPI, server: Standin) -> None:
    @app.get("/is_paused")
    def is_paused() -> dict[str, bool]:
        return {"is_paused": not server.awake.is_set()}

    @app.post("/pause")
    def pause(mode: str = "abort") -> dict[str, str]:
        assert mode == "wait"
        server.awake.clear()
        return {"status": "paused"}

    @app.post("/resume")
    def resume() -> dict[str, str]:
        server.awake.set()
        return {"status": "resumed"}

    @app.post("/collective_rpc")
    def collective_rpc(body: dict[str, Any]) -> Any:
        assert body["method"] == "reload_weights"
        try:
            server.load(body["kwargs"]["weights_path"])
        except (OSError, ValueError, KeyError) as problem:
            return error(500, f"Call to collective_rpc method failed: {problem}")
        return {"results": [None]}

    @app.post("/reset_prefix_cache")
    def reset_prefix_cache() -> dict[str, bool]:
        if server.resets:
            server.cache.clear()
        return {"success": server.resets}


@contextmanager
def running(server: Standin) -> Iterator[str]:
    """Serve in a thread. Gives the URL."""
    at = socket.create_server(("127.0.0.1", 0))
    http = uvicorn.Server(uvicorn.Config(make_app(server), log_level="warning", access_log=False))
    thread = threading.Thread(target=http.run, kwargs={"sockets": [at]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{at.getsockname()[1]}"
    finally:
        server.awake.set()
        http.should_exit = True
        thread.join()


def main() -> None:
    """As `vllm serve` is started; what it was started with is the log's first line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("model", type=Path)
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--served-model-name")
    parser.add_argument("--logprobs-mode", default="raw_logprobs")
    options, others = parser.parse_known_args()
    places = os.environ.get("CUDA_VISIBLE_DEVICES")
    sys.stdout.write(json.dumps({"others": others, "devices": places}) + "\n")
    sys.stdout.flush()
    server = Standin(
        options.model,
        name=options.served_model_name,
        dev_mode=os.environ.get("VLLM_SERVER_DEV_MODE") == "1",
        processed=options.logprobs_mode == "processed_logprobs",
    )
    uvicorn.run(make_app(server), host=options.host, port=options.port, log_level="warning")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
