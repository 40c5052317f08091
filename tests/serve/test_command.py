"""`mem1 serve retriever`: other people's clients are answered by what a corpus holds."""

import json
import os
import subprocess
import sys

import httpx2
import pytest

from mem1.cli import run_command

PASSAGES = [
    {"id": "1", "contents": '"Paris"\nParis is the capital of France.'},
    {"id": "2", "contents": '"Berlin"\nBerlin is the capital of Germany.'},
]


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.setenv("MEM1_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in PASSAGES))
    return path


def test_it_serves_what_the_corpus_holds(corpus):
    command = [sys.executable, "-m", "mem1.cli", "serve", "retriever", str(corpus), "--port", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        asked = {"queries": ["capital of Germany"], "topk": 1, "return_scores": False}
        told = httpx2.post(f"{address}retrieve", json=asked, timeout=10).json()
        assert told == {"result": [[PASSAGES[1]]]}
    finally:
        process.terminate()
        process.wait(timeout=10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.jsonl"], "none.jsonl: no such file"),
        (["none.jsonl", "--kind", "dense"], "--kind dense needs a model"),
        (["none.jsonl", "--model", "m"], "--model m with --kind bm25, which has none"),
        (["none.jsonl", "--kind", "hybrid", "--model", "m"], "none.jsonl: no such file"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments, message, capsys):
    assert run_command(["serve", "retriever", *arguments]) == 2
    assert message in capsys.readouterr().err
