"""A CORPUS FILE -> PASSAGES, copied behind one another and memory-mapped.

    corpus.jsonl(.gz) -> read_corpus -> (id, contents), …
    corpus -> write_passages -> a folder -> Passages

Every index keeps its own copy: what is found is what was indexed, whatever becomes of the corpus.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson

from mem1.errors import DataError
from mem1.files import read_lines
from mem1.tools.search import Passage

_PASSAGES, _OFFSETS = "passages.jsonl", "offsets.npy"


def read_corpus(corpus: Path) -> Iterator[tuple[str, str]]:
    """Id and contents of each passage. Raises: DataError naming the line of a malformed record, or
    for a corpus that is missing or empty."""
    if not corpus.is_file():
        raise DataError(f"corpus {corpus}: no such file (looked at {corpus.absolute()})")
    number = 0
    for number, line in read_lines(corpus):
        try:
            record = orjson.loads(line)
            if "contents" not in record:
                record["contents"] = f'"{record["title"]}"\n{record["text"]}'
            if not isinstance(record["contents"], str):
                raise TypeError(f"contents is {record['contents']!r}")
            yield str(record["id"]), record["contents"]
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise DataError(
                f"{corpus}:{number}: not a passage ({error!r}): give `id` and `contents`"
            ) from error
    if not number:
        raise DataError(f"corpus {corpus}: holds no passage")


def write_passages(corpus: Path, folder: Path) -> Iterator[str]:
    """Copy a corpus into a folder, for `Passages`; gives each one's contents on the way. Raises:
    DataError as `read_corpus` does."""
    offsets = [0]
    with (folder / _PASSAGES).open("wb") as file:
        for id, contents in read_corpus(corpus):
            file.write(orjson.dumps({"id": id, "contents": contents}))
            offsets.append(file.tell())
            yield contents
    np.save(folder / _OFFSETS, np.array(offsets, dtype=np.int64))


class Passages:
    """The passages of a folder, by their row in the corpus."""

    def __init__(self, folder: Path) -> None:
        self._bytes = np.memmap(folder / _PASSAGES, dtype=np.uint8, mode="r")
        self._offsets = np.load(folder / _OFFSETS, mmap_mode="r")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def passage(self, row: int, *, score: float) -> Passage:
        """A passage as it's found."""
        id, contents = self[row]
        return Passage.of_contents(id, contents, score=score)

    def __getitem__(self, row: int) -> tuple[str, str]:
        """Id and contents."""
        start, end = self._offsets[row : row + 2]
        record = orjson.loads(self._bytes[start:end].tobytes())
        return record["id"], record["contents"]
