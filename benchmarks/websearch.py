"""Recorded Serper answers and pages -> a recording that `replay` reads -> what comes out of it.

    python benchmarks/websearch.py ../shared/data/websearch FOLDER [--out docs/results/web.json]

Checks that every recorded answer is replayed through the tools an agent has, that titles, addresses
and snippets are the recorded ones, and that no tag of any of these texts works behind the gate.
"""

import argparse
import asyncio
import gzip
import json
from collections.abc import Iterator
from pathlib import Path

from mem1.chat import ByteRenderer, observation_segment
from mem1.files import atomic_write
from mem1.text import parse_reply
from mem1.tools import SearchTool
from mem1.tools.web import PROVIDERS, FetchTool, Guard, Recording, WebReply, WebRequest, WebSearch

TOP_K = 5
TAGS = ("search", "fetch", "tool", "answer")


def rows(path: Path) -> Iterator[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def record(source: Path, folder: Path) -> tuple[dict[str, dict], list[dict]]:
    """Write the recording; returns the answers by query and the pages."""
    recording, serper = Recording(folder, mode="record"), PROVIDERS["serper"]
    answers: dict[str, dict] = {}
    for row in rows(source / "serper_responses.jsonl.gz"):
        words = " ".join(row["query"].split())[:400]
        request = serper.request(serper.url or "", query=words, count=TOP_K)
        body = json.dumps(row["response"]).encode()
        recording.store(
            request, WebReply(url=request.url, content_type="application/json", body=body)
        )
        answers[words] = row["response"]
    pages = list(rows(source / "web_pages.jsonl.gz"))
    for page in pages:
        body = page["content"].encode()
        reply = WebReply(url=page["url"], content_type="text/markdown; charset=utf-8", body=body)
        recording.store(WebRequest(url=str(Guard().check(page["url"].partition("#")[0]))), reply)
    return answers, pages


def harmless(text: str) -> bool:
    """Whether the gate leaves no state and no action in a text."""
    segment = observation_segment(ByteRenderer(), text, turn=1, max_tokens=100_000, tags=TAGS)
    inside = segment.text.strip().removeprefix("<information>").removesuffix("</information>")
    reply = parse_reply(inside + "</answer></think>", actions=TAGS)
    return (reply.state_span, reply.action) == (None, None)


async def replay(folder: Path, answers: dict[str, dict], pages: list[dict]) -> dict:
    recording = Recording(folder, mode="replay")
    search, fetch = WebSearch("serper", recording=recording), FetchTool(recording=recording)
    tool = SearchTool(search, top_k=TOP_K)
    same = shown = safe = 0
    for query, answer in answers.items():
        pairs = [(one.id, one.title) for one in await search.search(query, top_k=TOP_K)]
        wanted = [(one["link"], one["title"]) for one in answer["organic"]]
        boxed = pairs[1:] == wanted[: TOP_K - 1] and "answerBox" in answer
        same += pairs == wanted[:TOP_K] or boxed
        text = await tool.call(query)
        shown += text.startswith("Doc 1(")
        safe += harmless(text)
    read = page_safe = 0
    for page in pages:
        text = await fetch.call(f"{page['url']} {page['title']}")
        read += text.startswith("Page(")
        page_safe += harmless(text)
    return {
        "searches": len(answers),
        "searches_as_recorded": same,
        "searches_with_results": shown,
        "searches_harmless": safe,
        "pages": len(pages),
        "pages_read": read,
        "pages_harmless": page_safe,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    answers, pages = record(options.source, options.folder)
    found = asyncio.run(replay(options.folder, answers, pages))
    size = sum(path.stat().st_size for path in options.folder.rglob("*.json.gz"))
    found["recording_MB"] = round(size / 1e6, 2)
    text = json.dumps(found, indent=1)
    if options.out:
        atomic_write(options.out, text + "\n")
    print(text)


if __name__ == "__main__":
    main()
