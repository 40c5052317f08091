"""What the browser tests work with: the commands, a server, a tab that listens."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
MEM1 = (sys.executable, "-m", "mem1.cli")
ENVIRONMENT = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}


def mem1(*arguments: str | Path) -> None:
    """Run a command of mem1; its output stands in the error if it fails."""
    done = subprocess.run(
        [*MEM1, *map(str, arguments)],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def served(*folders: Path) -> Iterator[str]:
    """The address at which `mem1 view` shows some runs."""
    process = subprocess.Popen(
        [*MEM1, "view", *map(str, folders)], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"http://[\w.:\[\]-]+/", line):
                yield found[0]
                return
        raise AssertionError("mem1 view ended without telling its address")
    finally:
        process.terminate()
        process.wait(timeout=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tab:
    """A page, and all that it did which a quiet page doesn't do."""

    page: Any
    origin: str
    alarms: list[str] = field(default_factory=list[str])
    """Dialogs, errors, complaints of the content security policy, requests elsewhere."""

    def go(self, route: str = "") -> Any:
        """Open a route of the page and wait until it's drawn; gives the page."""
        before = self.page.evaluate("document.querySelector('main')?.dataset.ready ?? null")
        self.page.goto(f"{self.origin}#/{route}")
        self.page.wait_for_function(
            "before => (document.querySelector('main')?.dataset.ready ?? null) !== before",
            arg=before,
        )
        return self.page
