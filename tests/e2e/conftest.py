"""A run's input files and a server, ready for the commands."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_server import ChatServer, chat_server

CORPUS = [
    {"id": "1", "contents": '"Paris"\nParis is the capital of France.'},
    {"id": "2", "contents": '"Berlin"\nBerlin is the capital of Germany.'},
]
QUESTIONS = [
    {"id": f"q{i}", "question": f"Capital of France, part {i}?", "golden_answers": ["Paris"]}
    for i in range(3)
]


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as running:
        yield running


@pytest.fixture
def config(tmp_path: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """A config file over three questions and two policies; the working directory is its folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEM1_CACHE", str(tmp_path / "cache"))
    write_lines(tmp_path / "corpus.jsonl", CORPUS)
    write_lines(tmp_path / "questions.jsonl", QUESTIONS)
    Path("small.toml").write_text(f"""
[engine]
kind = "openai"
base_url = "{server.url}"
model = "parrot"
mode = "chat"

[retriever]
kind = "bm25"
corpus = "corpus.jsonl"

[context]
policies = ["internal_state", "full"]

[tasks]
files = ["questions.jsonl"]
num_objectives = [1]

[budget]
prompt = 2000

[run]
max_turns = 3
concurrency = 2
""")
    return "small.toml"


def write_lines(path: Path, records: list[dict]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
