"""The retriever's server: its answers byte by byte, its limits, and whom it answers."""

import asyncio
import json
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from urllib.parse import quote

import httpx2
import orjson
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mem1.errors import ConfigError, ToolError
from mem1.serve import Limits, make_app, serve
from mem1.serving import Guard, open_port
from mem1.tools import BM25Index, HTTPRetriever, Passage

ADDRESS = "http://127.0.0.1:8000"
PARIS = Passage(id="7", title="Paris", text="The capital of France.", score=2.5)
LINE = Passage(id="8", title="", text="only text", score=1.0)
SMALL = Limits(queries=4, topk=5, passages=12, query_chars=10, body_bytes=500, body_s=0.2)


class Shelf:
    """A retriever that finds the same passages for every query but `nothing`, and keeps queries."""

    def __init__(self, *passages):
        self.passages, self.asked = passages or (PARIS, LINE), []

    async def search(self, query, *, top_k):
        self.asked.append((query, top_k))
        return [] if query == "nothing" else list(self.passages[:top_k])


class Down:
    async def search(self, query, *, top_k):
        raise ToolError("index gone")


def client(retriever=None, **options):
    return TestClient(make_app(retriever or Shelf(), **options), base_url=ADDRESS)


def ask(body, retriever=None, **options):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client(retriever, **options).post("/retrieve", content=content)


def test_with_scores_the_wire_is_that_of_search_r1():
    body = {"queries": ["capital?", "nothing"], "topk": 2, "return_scores": True}
    answer = ask(body)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.content == (
        b'{"result":[[{"document":{"id":"7","contents":"\\"Paris\\"\\nThe capital of France."},'
        b'"score":2.5},{"document":{"id":"8","contents":"only text"},"score":1.0}],[]]}'
    )


def test_without_scores_each_entry_is_the_document_itself():
    answer = ask({"queries": ["capital?", "nothing"], "topk": 2, "return_scores": False})
    assert (answer.status_code, answer.content) == (
        200,
        b'{"result":[[{"id":"7","contents":"\\"Paris\\"\\nThe capital of France."},'
        b'{"id":"8","contents":"only text"}],[]]}',
    )


@pytest.mark.parametrize(
    "body", [{}, {"topk": None}, {"topk": 2.0}, {"topk": 2, "return_scores": False}]
)
def test_what_is_left_out_is_two_passages_without_scores(body):
    shelf = Shelf()
    answer = ask({"queries": ["a"]} | body, shelf, top_k=2)
    assert list(answer.json()["result"][0][0]) == ["id", "contents"]
    assert shelf.asked == [("a", 2)]


def test_no_queries_are_no_results_and_unknown_fields_are_passed_over():
    assert ask({"queries": [], "session": 1}).json() == {"result": []}


def read_as_search_r1_does(results):
    """Titles and texts, as `_passages2string` of Search-R1 and verl take them from an answer."""
    contents = [hit["document"]["contents"] for hit in results]
    return [(c.split("\n")[0], "\n".join(c.split("\n")[1:])) for c in contents]


def test_clients_of_the_family_read_it():
    answer = ask({"queries": ["a"], "topk": 1, "return_scores": True}).json()
    assert read_as_search_r1_does(answer["result"][0]) == [('"Paris"', "The capital of France.")]


@pytest.mark.parametrize(
    "contents", ['"Paris"\nCapital.\nLarge.', "only text", '""\nno title\nhere', '""a" b"\ntext']
)
def test_contents_survive_the_way_to_a_client(contents):
    passage = Passage.of_contents("1", contents, score=1.0)
    answer = ask({"queries": ["a"]}, Shelf(passage)).json()
    (document,) = answer["result"][0]
    assert Passage.of_contents(document["id"], document["contents"], score=1.0) == passage


def test_half_a_character_in_a_query_is_searched_as_a_question_mark():
    shelf = Shelf()
    assert ask(b'{"queries": ["a\\ud83d"], "topk": 1}', shelf).status_code == 200
    assert shelf.asked == [("a?", 1)]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "the body is no JSON"),
        (b"{", 400, "the body is no JSON"),
        (b"\xff\xfe", 400, "the body is no JSON"),
        (b"[" * 400, 400, "the body is no JSON"),
        ([], 422, "the body: Input should be"),
        ({}, 422, "queries: Field required"),
        ({"queries": "a"}, 422, "queries: Input should be a valid list"),
        ({"queries": ["a", 1]}, 422, "queries.1: Input should be a valid string"),
        ({"queries": ["a"] * 5}, 422, "queries: List should have at most 4 items"),
        ({"queries": ["a" * 11]}, 422, "queries.0: String should have at most 10 characters"),
        ({"queries": ["a"], "topk": 0}, 422, "topk: Input should be greater than or equal to 1"),
        ({"queries": ["a"], "topk": 6}, 422, "topk: Input should be less than or equal to 5"),
        ({"queries": ["a"], "topk": 1.5}, 422, "topk: Input should be a valid integer"),
        ({"queries": ["a"], "topk": "3"}, 422, "topk: Input should be a valid integer"),
        ({"queries": ["a"], "return_scores": 7}, 422, "return_scores: Input should be"),
        ({"queries": ["a"] * 4, "topk": 4}, 422, "queries × topk is 16, more than 12"),
        ({"queries": ["a" * 500]}, 413, "the body has more than 500 bytes"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_wrong_is_told_with_the_limit(body, status, message):
    answer = ask(body, limits=SMALL)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert answer.json()["error"].startswith(message)


@pytest.mark.parametrize(
    ("method", "path", "status", "why"),
    [("GET", "/retrieve", 405, "Method Not Allowed"), ("POST", "/search", 404, "Not Found")],
)
def test_what_isnt_there_is_told_as_any_mistake(method, path, status, why):
    answer = client().request(method, path)
    assert (answer.status_code, answer.json()) == (status, {"error": why})
    assert answer.headers.get("allow") == ("POST" if status == 405 else None)


def test_the_deepest_body_is_no_crash():
    assert ask(b'{"queries":' + b"[" * 2_000_000).status_code == 400
    assert ask(b'{"queries": [], "topk": ' + b"9" * 10_000 + b"}").status_code == 400


def test_a_body_that_drips_is_given_up():
    app = make_app(Shelf(), limits=SMALL)

    async def drip():
        for _ in range(100):
            yield b" "
            await asyncio.sleep(0.02)

    async def send():
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url=ADDRESS) as asks:
            return await asks.post("/retrieve", content=drip())

    answer = asyncio.run(send())
    assert (answer.status_code, answer.json()) == (408, {"error": "the body took more than 0.2 s"})


def test_a_retriever_that_cannot_answer_is_503_with_its_reason():
    answer = ask({"queries": ["a"]}, Down())
    assert answer.status_code == 503
    assert answer.json() == {"error": "the retriever can't answer: index gone"}


def test_health_tells_the_number_of_passages(tmp_path):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_bytes(orjson.dumps({"id": "1", "contents": "text"}))
    index = BM25Index.open(corpus, cache_dir=tmp_path)
    assert client(index).get("/health").json() == {"status": "ok", "passages": 1}
    assert client().get("/health").json() == {"status": "ok", "passages": None}


def test_the_schema_tells_the_limits_and_the_page_needs_nothing_from_elsewhere():
    asks = client(limits=SMALL)
    schema = asks.get("/openapi.json").json()
    retrieve = schema["paths"]["/retrieve"]["post"]
    fields = retrieve["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert (fields["queries"]["maxItems"], fields["topk"]["anyOf"][0]["maximum"]) == (4, 5)
    assert sorted(retrieve["responses"]) == ["200", "400", "408", "413", "422", "503"]
    page = asks.get("/")
    assert "POST /retrieve" in page.text
    assert "<script" not in page.text
    assert "http" not in page.text.replace("ADDRESS", "")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
WORDS = st.text(st.characters(), max_size=20) | st.sampled_from(["a", "capital", "\ud83d", "\x00"])
NEAR = st.fixed_dictionaries(
    {"queries": st.lists(WORDS, max_size=6) | JSON},
    optional={
        "topk": st.integers(-2, 8) | JSON,
        "return_scores": st.booleans() | JSON,
        "extra": JSON,
    },
)
RIGHT = st.fixed_dictionaries(
    {"queries": st.lists(st.text(max_size=10), max_size=2)},
    optional={"topk": st.none() | st.integers(1, 5), "return_scores": st.booleans()},
)
BODIES = (RIGHT | NEAR | JSON).map(lambda value: json.dumps(value).encode()) | st.binary()
MANY = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    corpus = folder / "corpus.jsonl"
    records = ({"id": str(n), "contents": f'"t{n}"\na capital b'} for n in range(9))
    corpus.write_bytes(b"\n".join(map(orjson.dumps, records)))
    index = BM25Index.open(corpus, cache_dir=folder)
    # Entered, it has one event loop for all requests, and no thread and loop for each.
    with client(index, limits=replace(SMALL, body_s=30.0)) as asks:
        yield asks


def test_two_thousand_bodies_get_an_answer_of_the_schema_or_a_4xx(searched):
    statuses = Counter()

    @settings(max_examples=2_000, **MANY)
    @given(body=BODIES)
    def check(body):
        answer = searched.post("/retrieve", content=body)
        record = answer.json()
        statuses[answer.status_code] += 1
        if answer.status_code == 200:
            asked = json.loads(body)
            topk = 3 if asked.get("topk") is None else int(asked["topk"])
            assert [len(hits) <= topk for hits in record["result"]] == [True] * len(
                asked["queries"]
            )
        else:
            assert list(record) == ["error"]

    check()
    assert statuses.total() >= 2_000
    assert set(statuses) - {413} == {200, 400, 422}
    assert statuses[200] >= 200


METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
PATHS = st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), max_size=20) | (
    st.sampled_from(["retrieve", "retrieve/", "health", "openapi.json", "", "docs", "../x"])
)
HEADERS = st.dictionaries(
    st.sampled_from(["host", "origin", "content-type", "cookie", "authorization", "accept"]),
    st.text(st.characters(codec="latin-1", min_codepoint=32), max_size=20),
    max_size=3,
)


@settings(max_examples=500, **MANY)
@given(method=METHODS, path=PATHS, headers=HEADERS, body=BODIES)
def test_whatever_is_asked_is_no_5xx(searched, method, path, headers, body):
    url = httpx2.URL(ADDRESS).copy_with(raw_path=b"/" + quote(path).encode())
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    assert searched.request(method, url, headers=encoded, content=body).status_code < 500


@contextmanager
def serving(retriever, **options):
    """A real server in a thread of its own; gives its address."""
    import uvicorn

    with open_port("127.0.0.1", 0) as at:
        app = make_app(retriever, **options)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [at]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{at.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)


def test_our_own_client_gets_from_a_served_index_what_the_index_finds():
    shelf = Shelf()

    async def many(url):
        retriever = HTTPRetriever(url)
        return await asyncio.gather(*(retriever.search("a", top_k=2) for _ in range(64)))

    with serving(shelf) as url:
        assert asyncio.run(many(url)) == [[PARIS, LINE]] * 64
    assert shelf.asked == [("a", 2)] * 64


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "evil.example"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ADDRESS}, 200),
    ],
)
def test_on_loopback_only_its_own_names_and_pages_are_answered(headers, status):
    answer = client().post("/retrieve", json={"queries": ["a"]}, headers=headers)
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        ({}, "", 401),
        ({"authorization": "Bearer wrong"}, "", 401),
        ({"authorization": "Basic right"}, "", 401),
        ({"authorization": "Bearer right"}, "", 200),
        ({"authorization": "bearer  right"}, "", 200),
        ({}, "?token=right", 200),
        ({}, "?token=wrong", 401),
        ({"cookie": "mem1-token=right"}, "", 200),
    ],
)
def test_with_a_token_whoever_tells_it_is_answered(headers, query, status):
    guard = Guard(command="mem1 serve retriever", token="right", any_host=True)
    asks = client(guard=guard)
    body = {"queries": ["a"]}
    headers = {"host": "gpu-7.example"} | headers
    assert asks.post(f"/retrieve{query}", json=body, headers=headers).status_code == status
    assert asks.get("/health", headers={"host": "x"}).status_code == 401


def test_where_others_reach_it_a_token_is_needed():
    for token in (None, ""):
        with open_port("0.0.0.0", 0) as at, pytest.raises(ConfigError, match="give a token"):
            serve(Shelf(), at=at, token=token)
