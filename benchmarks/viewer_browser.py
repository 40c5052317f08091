"""How long the viewer's page takes in a real browser, and how much memory.

    python benchmarks/viewer_browser.py        writes docs/results/viewer_browser.json

Makes 5,000 trajectories and one of 1,000 turns and about 20 MB with the library's own code, serves
them with `mem1 view`, opens both in headless chromium, and tells seconds until they're drawn, for
the first time and again, and the size of the JavaScript heap.
"""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson
from playwright.sync_api import sync_playwright

from mem1.files import atomic_write

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests/viewer/browser"))

RESULT = ROOT / "docs/results/viewer_browser.json"
LONG = "runs/1/trajectories/0/turns/500"
WORDS_OF_20_MB = 225
"""In each part of a turn of the long trajectory."""


def drawn(browser: Any, address: str, wait_for: str) -> tuple[float, float]:
    """Seconds until something stands on the page, and megabytes of heap after a collection."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    started = time.perf_counter()
    page.goto(address)
    page.locator(wait_for).wait_for()
    seconds = time.perf_counter() - started
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    heap = session.send("Runtime.getHeapUsage")["usedSize"] / 1e6
    page.close()
    return seconds, heap


def main() -> None:
    from made_runs import large_run, long_run, trajectory_of, write_run
    from viewing import served

    load = round(os.getloadavg()[0], 1)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        place = Path(folder)
        texts = [f"what is the value of name {number}" for number in range(8)]
        few = [trajectory_of(texts[: 1 + n % 8], task_id=f"task-{n}") for n in range(50)]
        some = write_run(place / "some", few)
        large = large_run(place / "large", of=some, num_trajectories=5000)
        long = long_run(place / "long", num_turns=1000, words=WORDS_OF_20_MB)
        size = (long / "trajectories.jsonl").stat().st_size / 1e6
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        figures: list[dict[str, Any]] = []
        with served(large, long) as address:
            for name, route, wait_for in (
                ("5,000 trajectories", "runs/0", "table.listing tbody a >> nth=0"),
                (f"1,000 turns, {size:.0f} MB", LONG, ".wrote pre >> nth=0"),
            ):
                for time_of in ("first", "again"):
                    seconds, heap = drawn(browser, f"{address}#/{route}", wait_for)
                    print(f"{name}, {time_of}: {seconds:.2f} s, heap {heap:.0f} MB")
                    figures.append(
                        {
                            "page": name,
                            "time": time_of,
                            "seconds": round(seconds, 2),
                            "heap_mb": round(heap, 1),
                        }
                    )
        told = {
            "command": "python benchmarks/viewer_browser.py",
            "browser": f"chromium {browser.version}",
            "cores": os.cpu_count(),
            "load_before": load,
            "pages": figures,
        }
        atomic_write(RESULT, orjson.dumps(told, option=orjson.OPT_INDENT_2) + b"\n")
        browser.close()


if __name__ == "__main__":
    main()
