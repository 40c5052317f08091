"""A small model answers questions on a web that was recorded: internal_state beside full context.

    OMP_NUM_THREADS=1 python benchmarks/web_replay.py ../shared/data [FOLDER]

DATA holds questions/bamboogle_dev.jsonl.gz and websearch/bamboogle_search_results.jsonl.gz. What an
agent once found with a search engine is served here as a SearXNG server would, best matches first
by BM25. SmolLM2-135M asks it through the tools of the open web, which keep what it says (`record`);
then the server stops and the same run is done again from what was kept (`replay`), and must be the
same to the token. Runs go to FOLDER (default runs/web_replay), where an interrupted one goes on;
the report to docs/results/web_replay.
"""

import asyncio
import gzip
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from mem1.api import evaluate, report_run
from mem1.config import RunConfig, load_config
from mem1.files import atomic_write
from mem1.rollout import latest
from mem1.tools import BM25Index
from mem1.types import context_ids

RESULT = Path(__file__).parent.parent / "docs/results/web_replay"
NUM_QUESTIONS = 20
TOP_K = 3
PORT = 8899
"""Always the same: what was asked, address included, is what replies are kept under."""


def rows(path: Path) -> Iterator[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def build_index(source: Path, folder: Path) -> BM25Index:
    """Everything that was found, each address once."""
    found = {
        hit["url"]: hit
        for row in rows(source / "websearch/bamboogle_search_results.jsonl.gz")
        for hit in row["results"]
    }
    corpus = folder / "found.jsonl"
    if not corpus.exists():
        lines = [
            json.dumps({"id": url, "contents": f'"{hit["title"]}"\n{hit["snippet"]}'})
            for url, hit in found.items()
        ]
        atomic_write(corpus, "\n".join(lines) + "\n")
    return BM25Index.open(corpus)


class Handler(BaseHTTPRequestHandler):
    """SearXNG's `/search?q=…&format=json`."""

    def __init__(self, index: BM25Index, *args) -> None:
        self._index = index
        super().__init__(*args)

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query).get("q", [""])[0]
        hits = asyncio.run(self._index.search(query, top_k=TOP_K))
        results = [{"title": h.title, "url": h.id, "content": h.text} for h in hits]
        body = json.dumps({"query": query, "results": results}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args) -> None:
        pass


@contextmanager
def served(index: BM25Index) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", PORT), partial(Handler, index))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def config(folder: Path, *, questions: Path, mode: str) -> RunConfig:
    """That of configs/demo.toml, with the web for its retriever."""
    settings = {
        # In bfloat16, which others share a step decides the last bits.
        "engine.dtype": "float32",
        "retriever.kind": "web",
        "retriever.provider": "searxng",
        "retriever.url": f"http://127.0.0.1:{PORT}",
        "retriever.mode": mode,
        "retriever.recording": str(folder / "recording"),
        "retriever.read": False,
        "retriever.top_k": TOP_K,
        "context.policies": ["internal_state", "full"],
        "tasks.files": [str(questions)],
        "tasks.num_objectives": [1],
        "tasks.per_cell": NUM_QUESTIONS,
    }
    overrides = [f"{name}={json.dumps(value)}" for name, value in settings.items()]
    return load_config("configs/demo.toml", overrides=overrides)


def sampled(folder: Path) -> dict[tuple, list[tuple]]:
    """All tokens of all episodes: contexts and replies."""
    return {
        key: [(context_ids(t.context), t.completion.token_ids) for t in trajectory.turns]
        for key, trajectory in latest(folder / "trajectories.jsonl").items()
    }


def main(source: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    questions = folder / "bamboogle.jsonl"
    packed = source / "questions/bamboogle_dev.jsonl.gz"
    atomic_write(questions, gzip.decompress(packed.read_bytes()))
    with served(build_index(source, folder)):
        evaluate(config(folder, questions=questions, mode="record"), folder=folder / "record")
    evaluate(config(folder, questions=questions, mode="replay"), folder=folder / "replay")
    same = sampled(folder / "record") == sampled(folder / "replay")
    command = ["python", "benchmarks/web_replay.py", *sys.argv[1:]]
    report_run(folder / "replay", command=command)
    for name in ("report.md", "em.svg", "peak_tokens.svg", "config.toml"):
        atomic_write(RESULT / name, (folder / "replay" / name).read_bytes())
    print(f"replayed {'to the token' if same else 'DIFFERENTLY'}: {RESULT / 'report.md'}")
    assert same


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "runs/web_replay"))
