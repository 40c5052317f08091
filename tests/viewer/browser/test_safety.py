"""Text of models, tools and tasks stays text, on the page and in a report."""

from pathlib import Path

import pytest
from made_runs import PAYLOADS, hostile_run
from viewing import Tab, mem1, served


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile_run(tmp_path_factory.mktemp("runs") / "hostile <img src=x onerror=hit=1>")


STEP = """async base => {
    const shown = [];
    for (let turn = 1; turn <= 20; turn++) {
        location.hash = `#/${base}/turns/${turn}`;
        while (!document.querySelector("#turn")?.textContent.startsWith(`Turn ${turn} `))
            await new Promise(requestAnimationFrame);
        shown.push([...document.querySelectorAll(".wrote pre")].map(e => e.textContent).join(""));
    }
    return shown;
}"""


def visit_all(tab: Tab) -> set[str]:
    """Look at everything; gives the replies that were shown."""
    shown: set[str] = set()
    tab.go()
    tab.go("runs/0")
    for trajectory in range(10):
        base = f"runs/0/trajectories/{trajectory}"
        tab.go(f"{base}/facts")
        shown |= set(tab.page.evaluate(STEP, base))
    tab.go("runs/0/trajectories/0/mask")
    tab.page.wait_for_timeout(500)
    return shown


@pytest.mark.parametrize("place", ["server", "report"])
def test_no_payload_runs_or_asks_elsewhere(hostile: Path, tmp_path: Path, open_tab, place: str):
    replies = {f"<think>{text}</think><search>{text}</search>" for text in PAYLOADS}
    if place == "report":
        mem1("report", hostile, "-o", tmp_path / "report.html")
        tab = open_tab((tmp_path / "report.html").as_uri())
        shown = visit_all(tab)
    else:
        with served(hostile) as address:
            tab = open_tab(address)
            shown = visit_all(tab)
    assert (tab.page.evaluate("window.hit ?? null"), tab.alarms) == (None, [])
    assert shown == replies
