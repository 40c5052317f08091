"""Everybody can read it: axe finds nothing serious, nothing is wider than a telephone."""

from importlib.resources import files

import pytest

PAGES = ("", "runs/0", "runs/0/trajectories/0/turns/2", "runs/0/trajectories/0/facts",
         "runs/0/trajectories/0/mask")  # fmt: skip
FIND = """async () => (await axe.run()).violations
    .filter(({impact}) => impact === "serious" || impact === "critical")
    .map(({id, nodes}) => `${id}: ${nodes[0].html}`)"""


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 390)])
def test_axe_finds_nothing_serious(origin: str, open_tab, scheme: str, width: int):
    package = pytest.importorskip("axe_playwright_python", reason="pip: axe-playwright-python")
    axe = files(package).joinpath("axe.min.js").read_text("utf-8")
    tab = open_tab(origin, color_scheme=scheme, viewport={"width": width, "height": 900})
    found = {}
    for route in PAGES:
        page = tab.go(route)
        if route.endswith("turns/2"):
            page.keyboard.press("t")
            page.locator(".wrote .piece").first.wait_for()
        page.evaluate(axe)
        found[route] = page.evaluate(FIND)
        assert page.evaluate("document.documentElement.scrollWidth") == width
    assert found == {route: [] for route in PAGES}
