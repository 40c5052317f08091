"""RUNS -> ONE HTML FILE that opens from disk, without a server: the page, and answers inside it.

run folders -> write_html -> report.html
"""

import base64
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import orjson

from mem1.files import atomic_write
from mem1.viewer.library import Json, Library, no_decoder
from mem1.viewer.server import INDEX, static_files
from mem1.viewer.trajectory_view import Decode

HTML_FILE = "report.html"
NUM_TRAJECTORIES = 24
"""Of each run."""
MAX_BYTES = 4_000_000
"""Of trajectories of each run, tokens and layouts included; one is always there."""


def write_html(
    folders: Sequence[Path],
    path: Path,
    *,
    decoder_of: Callable[[Path], Decode | None] = no_decoder,
    num_trajectories: int = NUM_TRAJECTORIES,
) -> Path:
    """Write a page that shows some runs, with a choice of their trajectories, and gives its path.

    Args: `decoder_of`, what decodes the tokens of a run folder, if anything does;
    `num_trajectories`, of each run: of every cell the best, the worst and the longest, then others
    from best to worst.
    Raises: DataError for a folder that isn't there.
    """
    library = Library(folders, decoder_of=decoder_of)
    answers: Json = {"runs": library.load("runs")}
    for run in answers["runs"]["runs"]:
        answers |= _of_run(library, run["run"], num_trajectories=num_trajectories)
    atomic_write(path, page_with(orjson.dumps(answers)))
    return path


def page_with(answers: bytes) -> str:
    """The page in one file. Args: `answers`, JSON of what `load` gives, by path."""
    files = {name: text.decode() for name, text in static_files().items()}
    scripts = re.findall(r'<script src="([^"]+)"></script>', files[INDEX])
    policy = (
        f"default-src 'none'; script-src {' '.join(_hash(files[name]) for name in scripts)}; "
        f"style-src {_hash(files['style.css'])}; img-src data:; base-uri 'none'; form-action 'none'"
    )
    data = answers.decode().replace("<", "\\u003c")
    page = files[INDEX].replace(
        "<title>", f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<title>'
    )
    inlined = {
        '<link rel="stylesheet" href="style.css">': f"<style>{files['style.css']}</style>",
        "<!-- mem1-data -->": f'<script type="application/json" id="mem1-data">{data}</script>',
    } | {f'<script src="{name}"></script>': f"<script>{files[name]}</script>" for name in scripts}
    # In one pass: nothing is looked for in what was put in.
    return re.sub("|".join(map(re.escape, inlined)), lambda found: inlined[found[0]], page)


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _of_run(library: Library, run: int, *, num_trajectories: int) -> Json:
    """The answers about one run."""
    base = f"runs/{run}"
    answers = {path: library.load(path) for path in (f"{base}/cells", f"{base}/curves")}
    listing = library.load(f"{base}/trajectories?from=0")
    kept, size = set[int](), 0
    for number in chosen(listing)[:num_trajectories]:
        found = dict(_of_trajectory(library, f"{base}/trajectories/{number}"))
        size += len(orjson.dumps(found))
        if kept and size > MAX_BYTES:
            break
        kept.add(number)
        answers |= found
    rows = [row for row in listing["rows"] if row[0] in kept]
    answers[f"{base}/trajectories?from=0"] = {**listing, "rows": rows}
    return answers


def _of_trajectory(library: Library, path: str) -> Iterator[tuple[str, Json]]:
    view = library.load(path)
    yield path, view
    yield f"{path}/layout", library.load(f"{path}/layout")
    for turn in range(1, len(view["turns"]) + 1):
        yield f"{path}/turns/{turn}/tokens", library.load(f"{path}/turns/{turn}/tokens")


def chosen(listing: Json) -> list[int]:
    """Trajectories of a list in the order in which they are worth showing; of training only those
    of its last and its first step.

    Of each policy and number of objectives in turn: the best, the worst, the longest, then those
    between best and worst, each halving the widest gap.
    """
    rows = [dict(zip(listing["columns"], row, strict=True)) for row in listing["rows"]]
    steps = [row["step"] or 0 for row in rows]
    cells: dict[Any, list[Json]] = {}
    for row in sorted(rows, key=lambda row: -(row["step"] or 0)):
        if (row["step"] or 0) in (min(steps), max(steps)):
            key = (row["step"], row["context_policy"], row["num_objectives"])
            cells.setdefault(key, []).append(row)
    orders = [_spread(cell) for cell in cells.values()]
    found = [number for turn in zip_longest(*orders) for number in turn if number is not None]
    return list(dict.fromkeys(found))


def _spread(rows: Sequence[Json]) -> list[int]:
    ranked = sorted(rows, key=lambda row: (-row["reward"], row["trajectory"]))
    longest = max(rows, key=lambda row: row["num_turns"])
    first = [ranked[0], ranked[-1], longest]
    return [row["trajectory"] for row in first] + [
        ranked[place]["trajectory"] for place in _halving(len(ranked))
    ]


def _halving(size: int) -> Iterator[int]:
    """Places 0 to size - 1, each in the middle of a widest gap between those before it."""
    gaps = [(0, size)]
    while gaps:
        start, stop = gaps.pop(0)
        if start < stop:
            middle = (start + stop) // 2
            yield middle
            gaps += [(start, middle), (middle + 1, stop)]
