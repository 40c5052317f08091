"""A real browser before a real server: Debian's chromium drives `mem1 view`.

Skipped, saying why, where playwright or chromium are missing; `make setup` installs both.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from viewing import ROOT, Tab, served

from mem1.cli import run_command

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


@pytest.fixture(scope="module")
def chromium():
    """The browser, for the tests of a file: it takes the event loop, which others need."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if CHROMIUM is None:
        pytest.skip("chromium is missing: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def note_foreign(tab: Tab, url: str) -> None:
    if not url.startswith((tab.origin, "data:")):
        tab.alarms.append(f"asks {url}")


@pytest.fixture
def open_tab(chromium) -> Iterator[Callable[..., Tab]]:
    """open_tab(address, **settings of the context) gives a Tab that listens."""
    contexts = []

    def opened(origin: str, **settings) -> Tab:
        contexts.append(chromium.new_context(**settings))
        tab = Tab(page=contexts[-1].new_page(), origin=origin)
        tab.page.set_default_timeout(30_000)
        tab.page.on("request", lambda request: note_foreign(tab, request.url))
        tab.page.on("dialog", lambda dialog: (tab.alarms.append("dialog"), dialog.dismiss()))
        tab.page.on("pageerror", lambda error: tab.alarms.append(str(error)))
        tab.page.on(
            "console",
            lambda said: tab.alarms.append(said.text) if said.type == "error" else None,
        )
        return tab

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run: the tiny trained policy of the demo on tasks of 2 and 4 questions. Made here: in
    a process of its own, loading torch would take longer than the run."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    settings = (
        f"engine.model={ROOT / 'data/ledger/internal_state'}",
        "tasks.num_objectives=[2,4]",
        "tasks.count=6",
        "run.concurrency=12",
    )
    chosen = [part for setting in settings for part in ("--set", setting)]
    config = str(ROOT / "configs/learn.toml")
    assert run_command(["eval", config, "--out", str(folder), *chosen]) == 0
    return folder


@pytest.fixture(scope="session")
def origin(run: Path) -> Iterator[str]:
    """Where that run is shown."""
    with served(run) as address:
        yield address
