"""The server answers its own page, on its own machine, with nothing but what it was given."""

import urllib.parse
from itertools import product

import pytest
from fastapi.testclient import TestClient
from worlds import answer, play, scripted

from mem1.errors import ConfigError
from mem1.rollout import TrajectoryStore
from mem1.serving import COOKIE, Guard, open_port
from mem1.viewer.library import Library
from mem1.viewer.server import make_app, serve, static_files

SECRET = "outside-4711"
ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture
def library(tmp_path):
    (tmp_path / "secret.txt").write_text(SECRET)
    with TrajectoryStore(tmp_path / "run/trajectories.jsonl") as store:
        store.append(play(scripted(answer("Paris"))))
    (tmp_path / "run/secret.txt").write_text(SECRET)
    return Library([tmp_path / "run"])


def client(library, guard=None):
    return TestClient(make_app(library, guard=guard), base_url=ADDRESS, follow_redirects=False)


def test_the_page_its_scripts_and_answers_are_served(library):
    asks = client(library)
    assert asks.get("/").text == asks.get("/index.html").text
    for name, text in static_files().items():
        assert asks.get(f"/{name}").content == text
    assert asks.get("/api/runs/0/trajectories?from=0").json()["next"] == 1
    missing = asks.get("/api/runs/7/cells")
    assert (missing.status_code, list(missing.json())) == (404, ["error"])


def test_every_answer_carries_the_policy(library):
    asks = client(library)
    for path in ("/", "/dom.js", "/api/runs", "/none"):
        headers = asks.get(path).headers
        assert "default-src 'none'; script-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


UPS = ("../", "..%2f", "%2e%2e/", "..\\", "..%5c", "%252e%252e%252f", "....//", "..;/", "%00../")
TARGETS = ("secret.txt", "run/secret.txt", "etc/passwd", "run/trajectories.jsonl")
PLACES = ("/", "/api/", "/api/runs/0/trajectories/")
STRINGS = [place + up * depth + t for place, up, t, depth in product(PLACES, UPS, TARGETS, (1, 6))]


def test_no_byte_from_outside_whatever_the_path(library, tmp_path):
    asks = client(library)
    absolute = [f"{place}{tmp_path}/secret.txt" for place in PLACES]
    assert len(STRINGS) > 100
    for path in [*STRINGS, *absolute, *(f"/api/{urllib.parse.quote(s)}" for s in STRINGS)]:
        response = asks.get(path)
        assert response.status_code == 404
        assert not any(text in response.text for text in (SECRET, "root:", '"segments"'))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_it_is_read_only(library, method):
    answer = client(library).request(method, "/api/runs")
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", ""]
)
def test_another_name_of_this_machine_is_refused(library, host):
    assert client(library).get("/api/runs", headers={"host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000"])
def test_names_of_loopback_are_its_own(library, host):
    assert client(library).get("/api/runs", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://evil.example", 403), ("null", 403), ("http://127.0.0.1:9", 403), (ADDRESS, 200)],
)
def test_another_page_gets_nothing(library, origin, status):
    headers = {"origin": origin}
    assert client(library).get("/api/runs", headers=headers).status_code == status


def test_a_token_opens_the_page_once_told(library):
    asks = client(library, Guard(command="mem1 view", token="right", any_host=True))
    assert asks.get("/api/runs").status_code == 401
    assert asks.get("/?token=wrong").status_code == 401
    assert asks.get("/?token=r%C3%AFght").status_code == 401
    told = asks.get("/?token=right", headers={"host": "gpu-7.example:8000"})
    assert (told.status_code, told.headers["location"]) == (303, "/")
    assert "httponly" in told.headers["set-cookie"].lower()
    seen = asks.get("/api/runs", headers={"cookie": f"{COOKIE}=right"})
    assert seen.status_code == 200


def test_where_others_reach_it_a_token_is_needed(library):
    with open_port("0.0.0.0", 0) as at, pytest.raises(ConfigError, match="give a token"):
        serve(library, at=at)


def test_a_port_that_is_taken_is_named():
    with open_port("127.0.0.1", 0) as at:
        port = at.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}"):
            open_port("127.0.0.1", port)
