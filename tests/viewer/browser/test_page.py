"""The page on a real run: open, filter, step; what it shows is what was measured."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from made_runs import large_run, long_run
from viewing import mem1, served


def test_figures_on_the_page_are_those_of_the_report(run: Path, origin: str, open_tab):
    tab = open_tab(origin)
    rows = tab.go().locator("table.figures tbody tr")
    shown = rows.evaluate_all(
        "rows => rows.map(row => [...row.querySelectorAll('data')].map(one => Number(one.value)))"
    )
    names = ("em", "f1", "answer_rate", "num_turns", "peak_tokens", "dependency", "survival")
    cells = json.loads((run / "report.json").read_text())["cells"]
    told = [[cell["estimates"][name]["mean"] for name in names] for cell in cells]
    assert (shown, tab.alarms) == (told, [])


def test_filter_sort_and_open_by_keyboard(origin: str, open_tab):
    page = open_tab(origin).go("runs/0")
    page.locator("#filter-n").select_option("4")
    assert page.locator(".status").inner_text() == "6 of 12 trajectories"
    page.get_by_role("button", name="Turns").click()
    page.get_by_role("button", name="Turns").click()
    turns = [int(text) for text in page.locator("tbody td.num_turns").all_inner_texts()]
    assert turns == sorted(turns, reverse=True)
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "filter-q"
    for key in ("Escape", "j", "j", "k", "Enter"):
        page.keyboard.press(key)
    page.get_by_role("heading", name="Turn 1 of").wait_for()
    assert f"Turn 1 of {turns[0]}" == page.locator("h2#turn").inner_text()


def test_filters_survive_a_reload(origin: str, open_tab):
    page = open_tab(origin).go("runs/0?n=2&sort=-reward")
    assert page.locator(".status").inner_text() == "6 of 12 trajectories"
    assert page.locator("th.reward").get_attribute("aria-sort") == "descending"


def test_a_range_of_each_figure_may_be_asked_for(run: Path, origin: str, open_tab):
    records = map(json.loads, (run / "trajectories.jsonl").read_bytes().splitlines())
    turns = [len(record["turns"]) for record in records]
    page = open_tab(origin).go("runs/0")
    page.get_by_label("Turns from").fill("4")
    page.get_by_label("Turns to").fill("5")
    shown = [int(text) for text in page.locator("tbody td.num_turns").all_inner_texts()]
    assert sorted(shown) == sorted(number for number in turns if 4 <= number <= 5)
    assert 0 < len(shown) < len(turns)
    assert "num_turns_from=4&num_turns_to=5" in page.url
    page.get_by_label("Hits from").fill("99")
    assert page.locator(".status").inner_text() == "0 of 12 trajectories"


def longest(run: Path) -> tuple[int, dict[str, Any]]:
    """The trajectory with most turns: its number, and its record as it was stored."""
    records = map(json.loads, (run / "trajectories.jsonl").read_bytes().splitlines())
    return max(enumerate(records), key=lambda pair: len(pair[1]["turns"]))


def test_steps_through_turns_and_links_to_each(run: Path, origin: str, open_tab):
    number, record = longest(run)
    tab = open_tab(origin)
    page = tab.go(f"runs/0/trajectories/{number}/turns/2")
    for key, turn in (("n", 3), ("p", 2), ("ArrowLeft", 1), ("ArrowRight", 2)):
        page.keyboard.press(key)
        page.get_by_role("heading", name=f"Turn {turn} of").wait_for()
        completion = record["turns"][turn - 1]["completion"]
        assert "".join(page.locator(".wrote pre").all_text_contents()) == completion["text"]
        assert page.url.endswith(f"/turns/{turn}")
    page.keyboard.press("t")
    page.locator(".wrote .piece").first.wait_for()
    trained = page.locator(".wrote .tokens .piece.trained").count()
    assert (trained, tab.alarms) == (len(completion["token_ids"]), [])


def test_context_is_shown_whole_with_its_token_counts(run: Path, origin: str, open_tab):
    number, record = longest(run)
    parts = open_tab(origin).go(f"runs/0/trajectories/{number}/turns/2").locator(".seen .part")
    segments = [record["segments"][index] for index in record["turns"][1]["context"]]
    assert parts.locator("pre").all_text_contents() == [one["text"] for one in segments]
    labels = parts.locator("summary").all_inner_texts()
    counts = [int(re.search(r"(\d+) token", label)[1]) for label in labels]
    assert counts == [len(one["token_ids"]) for one in segments]


def test_facts_and_mask_are_drawn(origin: str, open_tab):
    tab = open_tab(origin)
    page = tab.go("runs/0/trajectories/0/facts")
    assert page.locator("table.grid tbody tr").count() == 2
    page = tab.go("runs/0/trajectories/0/mask")
    page.locator("svg.mask path").first.wait_for()
    part = page.locator("svg.mask path").first
    part.hover()
    assert page.locator(".mask-page .told").inner_text().startswith("task prompt: ")
    assert tab.alarms == []


def test_two_runs_stand_side_by_side(run: Path, tmp_path: Path, open_tab):
    twin = shutil.copytree(run, tmp_path / "twin")
    with served(run, twin) as address:
        page = open_tab(address).go("?runs=0,1")
        heads = page.locator("table.figures thead th").all_inner_texts()
        differences = page.locator("table.figures td:last-child").all_inner_texts()
    assert [len(heads), set(differences)] == [4, {"0.00"}]


def training_run(folder: Path, *, of: Path, reward: float) -> Path:
    """A training run of two steps, whose rollouts are trajectories of another run."""
    lines = (of / "trajectories.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "rollouts").mkdir(parents=True)
    for step in (1, 2):
        chosen = lines[3 * step : 3 * step + 3]
        (folder / f"rollouts/step-{step:06d}.jsonl").write_bytes(b"".join(chosen))
    rows = [{"schema_version": 1, "step": 1, "reward": 0.0, "kl": 0.25, "peak_tokens": 40},
            {"schema_version": 1, "step": 2, "reward": reward}]  # fmt: skip
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(text)
    return folder


def test_training_runs_side_by_side_show_where_they_ended(run: Path, tmp_path: Path, open_tab):
    folders = [training_run(tmp_path / name, of=run, reward=r) for name, r in (("a", 1), ("b", 3))]
    with served(*folders) as address:
        tab = open_tab(address)
        page = tab.go("?runs=0,1")
        rows = page.locator("table.last tbody tr").all_inner_texts()
        assert page.locator("figure figcaption").all_inner_texts() == [
            "reward",
            "kl",
            "peak tokens",
        ]
        page = tab.go("runs/1?step_from=2")
        steps = page.locator("tbody td.step").all_inner_texts()
    assert [row.split("\t") for row in rows] == [
        ["reward", "1 step 2", "3 step 2", "2"],
        ["kl", "0.25 step 1", "0.25 step 1", "0"],
        ["peak tokens", "40 step 1", "40 step 1", "0"],
    ]
    assert (steps, tab.alarms) == (["2", "2", "2"], [])


def test_a_run_that_is_written_is_followed(run: Path, tmp_path: Path, open_tab):
    lines = (run / "trajectories.jsonl").read_bytes().splitlines(keepends=True)
    growing = shutil.copytree(run, tmp_path / "growing") / "trajectories.jsonl"
    growing.write_bytes(b"".join(lines[:5]))
    with served(growing.parent) as address:
        page = open_tab(address).go("runs/0")
        assert page.locator(".status").inner_text() == "5 trajectories"
        with growing.open("ab") as file:
            file.write(lines[5] + b"no record\n" + lines[6] + lines[7][:40])
        page.get_by_text("trajectories.jsonl:7 can't be read").wait_for()
        assert page.locator(".status").inner_text() == "7 trajectories"


def test_of_thousands_of_rows_only_those_in_view_exist(run: Path, tmp_path: Path, open_tab):
    with served(large_run(tmp_path / "large", of=run, num_trajectories=5000)) as address:
        page = open_tab(address, viewport={"width": 1440, "height": 900}).go("runs/0")
        assert page.locator(".status").inner_text() == "5,000 trajectories"
        assert page.locator("table.listing").get_attribute("aria-rowcount") == "5001"
        page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        page.locator("tr[aria-rowindex='5001']").wait_for()
        assert page.locator("table.listing tr").count() < 80


def test_of_a_thousand_turns_one_is_built(tmp_path: Path, open_tab):
    with served(long_run(tmp_path / "long", num_turns=1000)) as address:
        page = open_tab(address).go("runs/0/trajectories/0/turns/777")
        page.keyboard.press("n")
        page.get_by_role("heading", name="Turn 778 of 1,000").wait_for()
        assert page.locator(".wrote").count() == 1
        assert page.locator("table.turns tr").count() < 100
        assert "w777x0" in page.locator(".wrote").inner_text()


def test_what_cannot_be_shown_says_why(origin: str, open_tab):
    page = open_tab(origin).go("runs/0/trajectories/999")
    assert page.get_by_role("alert").locator("p").inner_text() != ""


def test_a_report_opens_from_disk_and_shows_the_same(run: Path, tmp_path: Path, open_tab):
    file = tmp_path / "report.html"
    mem1("report", run, "-o", file)
    tab = open_tab(file.as_uri())
    page = tab.go("runs/0/trajectories/0/turns/1")
    assert page.get_by_role("heading", name="Turn 1 of").count() == 1
    assert tab.go().locator("table.figures tbody tr").count() == 2
    assert tab.alarms == []
