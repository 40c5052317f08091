"""Commands that prepare tasks and corpora."""

import json
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from mem1.cli.options import AsJson, Configs, Limit, Sets, load, screen, watch


def compose(
    *files: Annotated[Path, Parameter(help="Question files: JSONL, JSONL.gz or parquet.")],
    num_objectives: Annotated[int, Parameter(help="Questions in one task.")],
    seed: Annotated[int, Parameter(help="Of the shuffle.")] = 0,
    limit: Annotated[int | None, Parameter(help="At most so many tasks.")] = None,
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="The task file to write.")],
) -> int:
    """Compose single questions into tasks of several objectives."""
    from mem1.config import TasksConfig
    from mem1.tasks import write_tasks
    from mem1.worlds import compose_tasks

    config = TasksConfig(
        files=tuple(map(str, files)), num_objectives=(num_objectives,), per_cell=limit, seed=seed
    )
    tasks = compose_tasks(config)
    write_tasks(tasks, out)
    print(f"{len(tasks)} tasks of {num_objectives} objectives in {out}")
    return 0


def export(
    *configs: Configs,
    to: Annotated[Literal["verl"], Parameter(name="--format", help="Whose files to write.")],
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="The folder to write to.")],
    limit: Limit = None,
    overrides: Sets = (),
) -> int:
    """Write the tasks of a config, and its held-out ones, for the trainers of others."""
    from mem1.adapters.verl.data import export_tasks

    config = load(configs, overrides=overrides)
    for path, count in export_tasks(config, folder=out, limit=limit).items():
        print(f"{count} tasks in {path}")
    return 0


def catalogue(*, as_json: AsJson = False) -> int:
    """List what can be loaded, with size and licence; question files of your own always can."""
    from mem1.console import show_sources
    from mem1.tasks.catalogue import SOURCES

    if as_json:
        print(json.dumps([asdict(source) for source in SOURCES]))
    else:
        show_sources(screen(), SOURCES)
    return 0


def index(
    corpus: Path,
    *,
    model: Annotated[
        str | None,
        Parameter(help="Also make vectors with this model of sentence-transformers."),
    ] = None,
) -> int:
    """Index a corpus, for BM25 and, with --model, for dense search; eval and run do so themselves
    if need be. Stopped, the same command goes on."""
    from mem1.config import BM25Config
    from mem1.tools import BM25Index
    from mem1.tools.indexes import DenseConfig
    from mem1.worlds import open_retriever

    kinds: list[BM25Config | DenseConfig] = [BM25Config(corpus=str(corpus))]
    if model is not None:
        kinds.append(DenseConfig(corpus=str(corpus), model=model))
    for config in kinds:
        with ExitStack() as stack:
            open_retriever(config, on_progress=watch(stack).on_index)
        print(f"{corpus}: {len(BM25Index.open(corpus))} passages indexed, {config.kind}")
    return 0
