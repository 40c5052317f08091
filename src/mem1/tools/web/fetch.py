"""READ A PAGE: the second tool of the open web.

    "https://… words" -> Guard, WebClient | Recording -> extract.py -> the passages about the words

What can't be read is no error: the agent is told why, and looks elsewhere.
"""

import asyncio
import importlib.util
import json
import os
import re
import sys
from collections.abc import Sequence
from weakref import WeakKeyDictionary

from mem1.errors import ConfigError, MissingExtraError
from mem1.tools.web import extract
from mem1.tools.web.client import Limits, WebClient, WebReply, WebRequest
from mem1.tools.web.guard import Guard, PageError
from mem1.tools.web.recording import Recording

PASSAGE_CHARS = 600
"""About a paragraph."""
EXTRACT_S = 10
"""Seconds of a processor's time that finding the text of a page may take."""
HOW = "Write an address, then, if you like, what you look for: https://example.org/page words"

_READABLE = re.compile(r"text/|application/(xhtml\+xml|pdf|json|xml)|$")
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT")
_LIMITS = Limits(deadline_s=20.0, attempts=2)


class FetchTool:
    """A `Tool`: `<fetch>https://en.wikipedia.org/wiki/Paris population</fetch>`."""

    name = "fetch"

    def __init__(
        self,
        *,
        max_chars: int = 4_000,
        recording: Recording | None = None,
        guard: Guard | None = None,
        limits: Limits = _LIMITS,
        extract_s: int = EXTRACT_S,
    ) -> None:
        """Args: `max_chars`, of a page that are shown; `recording`, None: live; `extract_s`,
        seconds of a processor's time.

        Raises: ConfigError for `max_chars` below a passage; MissingExtraError without trafilatura.
        """
        if max_chars < PASSAGE_CHARS:
            raise ConfigError(f"max_chars {max_chars}: a passage alone has {PASSAGE_CHARS}")
        for package in ("trafilatura", "lxml_html_clean"):
            if importlib.util.find_spec(package) is None:
                raise MissingExtraError(package, extra="web")
        self._max_chars, self._extract_s = max_chars, extract_s
        self._recording = recording or Recording()
        self._guard = guard or Guard()
        self._slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
            WeakKeyDictionary()
        )
        self._client = WebClient(
            limits=limits,
            guard=self._guard,
            accepts=lambda content_type: bool(_READABLE.match(content_type)),
        )

    async def call(self, argument: str) -> str:
        """The passages of a page that fit, or why there are none."""
        words = argument.encode("utf-8", "replace").decode().split()
        if not words:
            return HOW
        url = words[0].partition("#")[0]
        try:
            request = WebRequest(url=str(self._guard.check(url)))
            reply = await self._recording.reply(request, self._client.send)
            async with self._slot():
                title, text = await self._read(reply)
        except PageError as error:
            return f"{url[:200]} can't be read: {error}."
        found = split(text)
        shown = select(found, query=" ".join(words[1:]), max_chars=self._max_chars)
        lines = (f"[{number + 1}/{len(found)}] {found[number]}" for number in shown)
        return "\n".join((f"Page(Title: {title}) {reply.url}", *lines))

    def _slot(self) -> asyncio.Semaphore:
        """As many processes at once as there are processors: each takes some 100 MB."""
        loop = asyncio.get_running_loop()
        return self._slots.setdefault(loop, asyncio.Semaphore(os.cpu_count() or 1))

    async def _read(self, reply: WebReply) -> tuple[str, str]:
        """Title and text, found by a process without our keys. Raises: PageError."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", extract.__file__),
            *(reply.content_type[:200], str(self._extract_s)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        )
        try:
            # Where the system limits no processor time, and where many processes share it.
            async with asyncio.timeout(6 * self._extract_s):
                output, _ = await process.communicate(reply.body)
            said = json.loads(output)
        except TimeoutError:
            raise PageError("its text takes too long to find") from None
        except ValueError:
            raise PageError("its contents are broken, or take too long to read") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if "error" in said:
            raise PageError(said["error"])
        return said["title"], said["text"]


def split(text: str, *, size: int = PASSAGE_CHARS) -> list[str]:
    """Passages of at most `size` characters, at ends of lines or sentences where there are any.

    >>> split("One. Two.\\nThree.", size=9)
    ['One. Two.', 'Three.']
    """
    pieces: list[str] = []
    for line in text.splitlines():
        words = " ".join(line.split())
        for sentence in re.split(r"(?<=[.!?。]) ", words) if len(words) > size else [words]:
            pieces += [sentence[at : at + size] for at in range(0, len(sentence), size)]
    passages: list[str] = []
    for piece in pieces:
        if passages and len(passages[-1]) + 1 + len(piece) <= size:
            passages[-1] += f" {piece}"
        else:
            passages.append(piece)
    return passages


def select(passages: Sequence[str], *, query: str, max_chars: int) -> list[int]:
    """Which passages fit into `max_chars`: the best for the query, in the page's order.

    Without a query, or where its words don't occur, the earlier is the better. Numbers from 0.
    """
    order = _ranked(passages, query) if query else range(len(passages))
    chosen: list[int] = []
    room = max_chars
    for number in order:
        if len(passages[number]) > room:
            break
        chosen.append(number)
        room -= len(passages[number]) + 1
    return sorted(chosen)


def _ranked(passages: Sequence[str], query: str) -> list[int]:
    """By BM25 among themselves, best first."""
    import bm25s
    import numpy as np
    import Stemmer

    stem = Stemmer.Stemmer("english").stemWords
    documents = [stem(re.findall(r"\w+", passage.lower())) for passage in passages]
    known = {term for document in documents for term in document}
    wanted = [term for term in stem(re.findall(r"\w+", query.lower())) if term in known]
    if not wanted:
        return list(range(len(passages)))
    model = bm25s.BM25()
    model.index(documents, show_progress=False)
    scores = model.get_scores(wanted)
    return [int(number) for number in np.lexsort((np.arange(len(scores)), -scores))]
