"""The pictures of docs/viewer.md, taken from real runs in headless chromium.

    python examples/learn.py 0 runs/learn && mem1 eval configs/demo.toml
    python benchmarks/screenshots.py runs/learn/seed-0 runs/demo

Takes the folder of the tiny policy's runs and that of a run of SmolLM2; writes docs/screenshots.
"""

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests/viewer/browser"))

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What is on a picture, and how."""

    name: str
    route: str
    """May name a {trajectory}."""
    run: int = 0
    """Of the tiny policy's."""
    llm: bool = False
    """Of the run of SmolLM2."""
    wanted: Callable[[Row], Any] | None = None
    """The trajectory of the run that has most of this is shown."""
    keys: str = ""
    size: tuple[int, int] = (1440, 1000)
    dark: bool = False


def middling(row: Row) -> Any:
    """A long episode that forgot about half."""
    return row["num_objectives"] == 8, row["num_turns"], -abs(row["hits"] - 4)


def half_right(row: Row) -> Any:
    """An episode of the first training step that got one of two right."""
    return row["step"] == 1, row["hits"] == 1, row["num_turns"]


def searched_long(row: Row) -> Any:
    """An episode of the constant context that answered after many turns."""
    policy = row["context_policy"] == "internal_state"
    return policy, row["stop_reason"] == "answered", row["num_turns"], row["hits"]


TURN = "runs/{run}/trajectories/{trajectory}/turns/"
PICTURES = (
    Picture(name="runs", route="", size=(1440, 1150)),
    Picture(name="trajectories", route="runs/0?n=8&sort=-num_turns", keys="jjj", size=(1440, 640)),
    Picture(name="turn", route=TURN + "6", wanted=middling, size=(1440, 1020)),
    Picture(
        name="tokens", route=TURN + "2", run=2, wanted=half_right, keys="t", dark=True,
        size=(1440, 1080),
    ),
    Picture(
        name="facts", route="runs/{run}/trajectories/{trajectory}/facts", wanted=middling,
        size=(1440, 720), dark=True,
    ),
    Picture(
        name="mask", route="runs/{run}/trajectories/{trajectory}/mask", llm=True,
        wanted=searched_long, size=(1440, 1240),
    ),
    Picture(name="phone", route=TURN + "4", wanted=middling, size=(390, 1250), dark=True),
)  # fmt: skip


def best(page: Any, picture: Picture) -> int:
    """Number of the trajectory that a picture wants."""
    assert picture.wanted is not None
    answer = page.evaluate(f"mem1.load('runs/{picture.run}/trajectories?from=0')")
    rows = [dict(zip(answer["columns"], row, strict=True)) for row in answer["rows"]]
    return max(rows, key=picture.wanted)["trajectory"]


def take(browser: Any, address: str, picture: Picture) -> Path:
    """One picture, as a file of docs/screenshots."""
    width, height = picture.size
    page = browser.new_page(
        viewport={"width": width, "height": height},
        color_scheme="dark" if picture.dark else "light",
    )
    page.goto(address)
    page.locator("main[data-ready]").wait_for()
    trajectory = best(page, picture) if picture.wanted else None
    route = picture.route.format(run=picture.run, trajectory=trajectory)
    page.goto(f"{address}#/{route}")
    page.wait_for_timeout(1500)
    for key in picture.keys:
        page.keyboard.press(key)
        if key == "t":
            page.locator(".wrote .piece").first.wait_for()
        page.wait_for_timeout(500)
    path = ROOT / "docs/screenshots" / f"{picture.name}.png"
    page.screenshot(path=path)
    page.close()
    return path


def main(learned: str, llm: str) -> None:
    from viewing import served

    names = ("internal_state-after", "full-after", "internal_state-training", "full-training")
    learned_runs = [Path(learned) / name for name in names]
    (ROOT / "docs/screenshots").mkdir(exist_ok=True)
    with served(*learned_runs) as tiny, served(Path(llm)) as large, sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for picture in PICTURES:
            path = take(browser, large if picture.llm else tiny, picture)
            print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:3])
