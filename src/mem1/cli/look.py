"""Commands that look at runs, and hand them to other programs."""

import json
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from mem1.cli.options import AsJson, Host, Port, Token, note, screen, socket_of
from mem1.errors import ConfigError

Run = Annotated[Path, Parameter(help="The run's folder.")]


def view(
    *folders: Annotated[Path, Parameter(help="Run folders, or ones that hold some; else runs.")],
    host: Host = "127.0.0.1",
    port: Port = 0,
    token: Token = None,
    open_browser: Annotated[
        bool, Parameter(name="--open", help="Open the page in the browser.")
    ] = False,
) -> int:
    """Look at runs in a browser, also while they are written; serves until Ctrl-C."""
    from mem1.viewer.library import Library
    from mem1.viewer.server import serve
    from mem1.wiring import run_decoder

    library = Library(folders or (Path("runs"),), decoder_of=run_decoder)
    with socket_of(host, port, token=token) as (at, secret, address):
        note(f"{len(library.folders)} runs; Ctrl-C ends")
        print(address, flush=True)
        if open_browser:
            import webbrowser

            webbrowser.open(address)
        serve(library, at=at, token=secret)
    return 0


def show(
    folder: Run,
    *,
    task: Annotated[str | None, Parameter(help="Id of a task; without it, all are listed.")] = None,
    sample: Annotated[int | None, Parameter(help="Which rollout of the task.")] = None,
    context: Annotated[str | None, Parameter(help="Of which context policy.")] = None,
    turn: Annotated[int | None, Parameter(help="One turn with all that the model saw.")] = None,
    as_json: AsJson = False,
) -> int:
    """Print a trajectory in the terminal, turn by turn; without --task, the list of them."""
    from mem1.viewer.library import Library
    from mem1.viewer.records import check_trajectories
    from mem1.viewer.show import choose, how_to_ask, show_list, show_trajectory

    check_trajectories(folder)
    library = Library([folder])
    listing = library.load("runs/0/trajectories?from=0")
    if task is None:
        if sample is not None or context is not None or turn is not None:
            raise ConfigError("--sample, --context and --turn are of one task: name it with --task")
        if as_json:
            print(json.dumps(listing))
        else:
            show_list(screen(), listing, folder=str(folder))
        return int(bool(listing["damaged"]))
    row, others = choose(listing, task=task, sample=sample, context=context)
    found = library.load(f"runs/0/trajectories/{row['trajectory']}")
    if as_json:
        print(json.dumps(found))
        return 0
    show_trajectory(screen(), found, turn=turn)
    if others:
        note(f"others of this task: {how_to_ask(others)}")
    return 0


def export(
    folder: Run,
    *,
    to: Annotated[
        Literal["atif", "parquet"],
        Parameter(help="atif: a JSON file each; parquet: a row for each turn."),
    ],
    out: Annotated[
        Path | None,
        Parameter(name=["--out", "-o"], help="Where to; without it, into the run's folder."),
    ] = None,
    force: Annotated[bool, Parameter(help="Replace an earlier export.")] = False,
) -> int:
    """Write a run's trajectories in the format of other programs."""
    from mem1.viewer.export import export_run

    done = export_run(folder, to=to, out=out, force=force)
    print(f"{done.num_trajectories} trajectories, {done.num_turns} turns in {done.path}")
    if done.num_without_turns:
        note(f"{done.num_without_turns} trajectories ended before their first turn")
    for damage in done.damaged:
        note(f"left out: {damage}")
    return int(bool(done.damaged))
