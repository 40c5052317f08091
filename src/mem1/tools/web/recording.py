"""WHAT THE WEB SAID, ON DISK: runs that cost nothing and give the same again.

    WebRequest -> Recording.reply -> the stored reply, or the web's, stored

`live` stores nothing; `record` asks for what isn't stored yet; `replay` never asks. A page that
can't be read is stored too, as the agent was told so; a search that failed isn't: its episode is
repeated. One file for each request, gzipped JSON, written whole; no file holds a key.
"""

import asyncio
import gzip
import hashlib
import json
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal
from weakref import WeakValueDictionary

from mem1.errors import ConfigError, DataError, ToolError
from mem1.files import atomic_write
from mem1.tools.web.client import WebReply, WebRequest
from mem1.tools.web.guard import PageError

SCHEMA_VERSION = 1

Mode = Literal["live", "record", "replay"]
Ask = Callable[[WebRequest], Awaitable[WebReply]]


class Recording:
    """A folder of replies."""

    def __init__(self, folder: Path | None = None, *, mode: Mode = "live") -> None:
        """Raises: ConfigError if the mode needs a folder that isn't given or isn't there."""
        if mode != "live" and folder is None:
            raise ConfigError(f"retriever.mode {mode!r} needs a folder: set retriever.recording")
        if mode == "replay" and not (folder and folder.is_dir()):
            raise ConfigError(f"retriever.recording {folder}: no such folder; record one first")
        self._folder = folder or Path()
        self.mode: Mode = mode
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def reply(self, request: WebRequest, ask: Ask) -> WebReply:
        """The reply to a request. Equal requests at once are asked once.

        Raises: PageError as stored; what `ask` raises; ToolError in mode `replay` if there's none;
        DataError for a file that can't be used.
        """
        if self.mode == "live":
            return await ask(request)
        lock = self._locks.setdefault(request.key, asyncio.Lock())
        async with lock:
            if (stored := self._load(request)) is not None:
                return stored
            if self.mode == "replay":
                raise ToolError(
                    f"replay: {self._folder} holds no reply to {request.key}: record it, "
                    'with retriever.mode = "record"'
                )
            try:
                reply = await ask(request)
            except PageError as error:
                await asyncio.to_thread(self.store, request, error)
                raise
            await asyncio.to_thread(self.store, request, reply)
            return reply

    def store(self, request: WebRequest, reply: WebReply | PageError) -> None:
        """Keep what a request brought."""
        record: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "request": request.key}
        if isinstance(reply, PageError):
            record["error"] = str(reply)
        else:
            # Latin-1 gives each byte a character of its own: any body survives, text stays legible.
            record |= {"url": reply.url, "content_type": reply.content_type}
            record["body"] = reply.body.decode("latin-1")
        data = json.dumps(record, ensure_ascii=False).encode()
        atomic_write(self._path(request), gzip.compress(data, mtime=0))

    def _load(self, request: WebRequest) -> WebReply | None:
        path = self._path(request)
        try:
            record = json.loads(gzip.decompress(path.read_bytes()))
            if record["schema_version"] != SCHEMA_VERSION:
                raise DataError(
                    f"{path}: schema_version {record['schema_version']}, this mem1 reads "
                    f"{SCHEMA_VERSION}: record it anew"
                )
            if "error" in record:
                raise PageError(record["error"])
            return WebReply(
                url=record["url"],
                content_type=record["content_type"],
                body=record["body"].encode("latin-1"),
            )
        except FileNotFoundError:
            return None
        except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path}: no recorded reply ({error!r}): delete the file") from error

    def _path(self, request: WebRequest) -> Path:
        name = hashlib.sha256(request.key.encode()).hexdigest()[:32]
        return self._folder / name[:2] / f"{name}.json.gz"
