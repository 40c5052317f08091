"""What the commands share: their options, and how they speak."""

import json
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from mem1.errors import ConfigError, StoreError

if TYPE_CHECKING:
    import socket

    from rich.console import Console

    from mem1.api import Watcher
    from mem1.config import RunConfig
    from mem1.types import Trajectory

Sets = Annotated[
    tuple[str, ...],
    Parameter(name="--set", help="Change a setting: section.key=value. May be repeated."),
]
Limit = Annotated[
    int | None, Parameter(help="At most so many tasks for each number of objectives.")
]
AsJson = Annotated[bool, Parameter(name="--json", help="Print JSON and nothing else.")]
DryRun = Annotated[bool, Parameter(help="Say what would run, and run nothing.")]
Out = Annotated[
    Path | None, Parameter(help="The run's folder; without it, runs/ and the config's name.")
]
Host = Annotated[
    str, Parameter(help="Where to serve; where others can reach it, a token is needed.")
]
Port = Annotated[int, Parameter(help="0 for a free one.")]
Token = Annotated[str | None, Parameter(help="Who knows it is answered; made up if one is needed.")]
Configs = Annotated[Path, Parameter(help="TOML files, later over earlier.")]


def note(text: str) -> None:
    print(text, file=sys.stderr)


def load(files: Sequence[Path], *, overrides: Sequence[str]) -> "RunConfig":
    from mem1.config import load_config

    if not files and not overrides:
        raise ConfigError("no config: name a TOML file, for example configs/demo.toml")
    return load_config(*files, overrides=overrides)


def default_folder(configs: Sequence[Path]) -> Path:
    if not configs:
        raise StoreError("without a config file the run has no name: name its folder with --out")
    return Path("runs") / "+".join(path.stem for path in configs)


def plan(config: "RunConfig", *, limit: int | None, as_json: bool, samples: int) -> int:
    """Print config and cells. Args: `samples`, episodes of each task and policy; 0: the tasks are
    not played at all."""
    from mem1.console import show_plan
    from mem1.settings import dump_toml, to_table
    from mem1.wiring import model_window, plan_cells
    from mem1.worlds import compose_tasks

    window = model_window(config.engine)
    tasks = compose_tasks(config.tasks, limit=limit) if samples else []
    cells = plan_cells(config, tasks=tasks, window=window)
    if as_json:
        found: dict[str, Any] = {"config": to_table(config), "window": window}
        print(json.dumps(found | {"cells": [asdict(cell) for cell in cells]}))
    else:
        print(dump_toml(to_table(config)))
        show_plan(screen(), cells, window=window, samples=samples)
    problems = dict.fromkeys(cell.problem for cell in cells if cell.problem)
    for problem in problems:
        note(f"mem1: {problem}")
    return 2 if problems else 0


def failures(trajectories: "Sequence[Trajectory]") -> int:
    """Tell of episodes that failed; exit status 1 if there are any."""
    from mem1.types import FAILURES

    failed = [t for t in trajectories if t.stop_reason in FAILURES]
    if failed:
        first = failed[0]
        note(
            f"mem1: {len(failed)} of {len(trajectories)} episodes failed, the first with "
            f"{first.stop_reason}: {first.error}; the same command tries them again"
        )
    return int(bool(failed))


@contextmanager
def socket_of(
    host: str, port: int, *, token: str | None
) -> "Iterator[tuple[socket.socket, str | None, str]]":
    """A socket to serve at, its token, made up if others can reach it, and its address."""
    from mem1.serving import is_loopback, open_port

    token = token or (None if is_loopback(host) else secrets.token_urlsafe(16))
    with open_port(host, port) as at:
        name = f"[{host}]" if ":" in host else host
        query = f"?token={token}" if token else ""
        yield at, token, f"http://{name}:{at.getsockname()[1]}/{query}"


def screen() -> "Console":
    from rich.console import Console

    return Console()


def watch(stack: ExitStack) -> "Watcher":
    from mem1.api import Watcher
    from mem1.console import RunProgress

    progress = stack.enter_context(RunProgress())
    return Watcher(on_index=progress.index, on_start=progress.start, on_done=progress.add)
