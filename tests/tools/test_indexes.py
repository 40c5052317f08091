"""Settings become the retriever they name."""

import asyncio
import json

import numpy as np
import pytest

from mem1.errors import ConfigError
from mem1.settings import build
from mem1.tools.dense import DenseIndex
from mem1.tools.encoder import Encoder
from mem1.tools.hybrid import HybridRetriever
from mem1.tools.indexes import DenseConfig, HybridConfig, open_index

LETTERS = Encoder(
    name="letters", encode=lambda texts: np.array([[t.count(c) for c in "abc"] for t in texts])
)


def opened(folder, config):
    corpus = folder / "corpus.jsonl"
    texts = ["alpha", "bob", "cab"]
    records = [json.dumps({"id": str(row), "contents": text}) for row, text in enumerate(texts)]
    corpus.write_text("\n".join(records))
    return open_index(config(corpus=str(corpus), model="x"), encoder=LETTERS, cache_dir=folder)


def found(retriever, query):
    return [passage.id for passage in asyncio.run(retriever.search(query, top_k=2))]


def test_dense_finds_by_vectors_and_hybrid_by_words_too(tmp_path):
    dense, hybrid = opened(tmp_path, DenseConfig), opened(tmp_path, HybridConfig)
    assert (type(dense), type(hybrid)) == (DenseIndex, HybridRetriever)
    assert (found(dense, "bb alpha"), found(hybrid, "bb alpha")) == (["2", "0"], ["0", "2"])


def test_they_are_told_apart_by_kind_and_take_no_unknown_setting():
    table = {"kind": "hybrid", "corpus": "c.jsonl", "model": "m", "depth": 9}
    assert build(HybridConfig, table, at="retriever").depth == 9
    with pytest.raises(ConfigError, match=r"retriever\.depth"):
        build(DenseConfig, table | {"kind": "dense"}, at="retriever")
