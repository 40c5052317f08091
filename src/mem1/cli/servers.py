"""Commands that serve something to other programs."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from mem1.cli.options import Host, Port, Token, note, socket_of, watch
from mem1.errors import ConfigError


def retriever(
    corpus: Annotated[Path, Parameter(help="JSONL or JSONL.gz with id and contents.")],
    *,
    kind: Annotated[
        Literal["bm25", "dense", "hybrid"], Parameter(help="How it searches.")
    ] = "bm25",
    model: Annotated[
        str | None, Parameter(help="Of sentence-transformers, for dense and hybrid.")
    ] = None,
    top_k: Annotated[int, Parameter(help="Passages, where a request doesn't say.")] = 3,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    token: Token = None,
) -> int:
    """Serve the /retrieve wire API of Search-R1 and its relatives; until Ctrl-C."""
    from mem1.config import BM25Config
    from mem1.serve.retriever import serve
    from mem1.tools.indexes import DenseConfig, HybridConfig
    from mem1.worlds import open_retriever

    if (model is None) != (kind == "bm25"):
        raise ConfigError(
            f"--model {model} with --kind bm25, which has none: choose --kind dense or hybrid"
            if model
            else f"--kind {kind} needs a model of sentence-transformers: name it with --model"
        )
    place = str(corpus)
    if model is None:
        config = BM25Config(corpus=place)
    else:
        make = DenseConfig if kind == "dense" else HybridConfig
        config = make(corpus=place, model=model)
    with ExitStack() as stack:
        found = open_retriever(config, on_progress=watch(stack).on_index)
    with socket_of(host, port, token=token) as (at, secret, address):
        note(f"{corpus}, {kind}; Ctrl-C ends")
        print(address, flush=True)
        serve(found, at=at, token=secret, top_k=top_k)
    return 0
