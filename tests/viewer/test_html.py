"""One file holds the page and its answers, and nothing in it can be anything but text."""

import json
import re
from dataclasses import replace

import pytest
from worlds import answer, play, scripted, search

from mem1.rollout import TrajectoryStore
from mem1.viewer.html import chosen, page_with, write_html
from mem1.viewer.library import COLUMNS, Library

FOUND = play(scripted(search("</script><b>"), answer("Paris")))


@pytest.fixture
def run(tmp_path):
    """Ten trajectories, of rewards 0 to 9."""
    with TrajectoryStore(tmp_path / "run/trajectories.jsonl") as store:
        for sample in range(10):
            store.append(replace(FOUND, sample=sample, reward=float(sample)))
    return tmp_path / "run"


def embedded(path):
    text = path.read_text("utf-8")
    (data,) = re.findall(r'<script type="application/json" id="mem1-data">(.*?)</script>', text)
    return json.loads(data)


def test_it_answers_as_the_library_does(run, tmp_path):
    answers = embedded(write_html([run], tmp_path / "report.html"))
    library = Library([run])
    for path, found in answers.items():
        assert found == json.loads(json.dumps(library.load(path))), path
    assert "runs/0/trajectories/9/turns/2/tokens" in answers


def test_it_lists_the_trajectories_it_holds(run, tmp_path):
    answers = embedded(write_html([run], tmp_path / "report.html", num_trajectories=3))
    listed = [row[0] for row in answers["runs/0/trajectories?from=0"]["rows"]]
    held = [path for path in answers if re.fullmatch(r"runs/0/trajectories/\d+", path)]
    assert [f"runs/0/trajectories/{number}" for number in listed] == sorted(held)
    assert (len(listed), answers["runs"]["runs"][0]["num_trajectories"]) == (3, 10)


def test_every_script_is_allowed_by_its_hash_and_nothing_else_is():
    page = page_with(b"{}")
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    assert policy.split("; ")[0] == "default-src 'none'"
    assert len(re.findall("'sha256-", policy.split("; ")[1])) == len(scripts) > 5
    assert re.findall(r"(?:src|href)=\"(?!#|data:,)", page) == []


def test_no_text_ends_the_data(tmp_path):
    page = page_with(json.dumps({"x": "</script><script>hit()</script><!--"}).encode())
    assert "<script>hit()" not in page
    assert page.count("<!--") == 0


def listing(*rewards, turns=None, step=None, policy="full", start=0):
    rows = []
    for number, reward in enumerate(rewards, start=start):
        row = dict.fromkeys(COLUMNS) | {"trajectory": number, "reward": reward, "step": step}
        row |= {"num_turns": (turns or {}).get(number, 1), "context_policy": policy}
        rows.append([row[name] for name in COLUMNS])
    return rows


def picked(*groups):
    return chosen({"columns": COLUMNS, "rows": [row for group in groups for row in group]})


def test_best_worst_and_longest_come_first_then_all_others():
    found = picked(listing(1, 5, 3, 0, 2, turns={4: 9}))
    assert (found[:3], sorted(found)) == ([1, 3, 4], [0, 1, 2, 3, 4])


def test_policies_take_turns():
    found = picked(listing(1, 5, 3), listing(1, 5, 3, policy="window", start=3))
    assert found[:4] == [1, 4, 0, 3]


def test_of_training_the_last_and_the_first_step_are_shown():
    steps = [listing(0, 1, step=step, start=2 * step) for step in range(3)]
    assert picked(*steps) == [5, 1, 4, 0]
