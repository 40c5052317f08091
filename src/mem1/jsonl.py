"""Records of JSONL and JSONL.gz files, each with its line number for error messages.

path -> read_records -> (1, {...}), (2, {...}), …
"""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from mem1.errors import DataError


def read_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, record) for every line of a file that is not blank.

    Raises: DataError naming path and line if the file is missing, is not gzip though its name
    says so, or a line is not a JSON object.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file: check the path")
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _record(line, where=f"{path}:{number}")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}:{number + 1}: damaged gzip file ({error}): make it anew"
        ) from error


def _record(line: bytes, *, where: str) -> dict[str, Any]:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error}): each line must be a JSON object") from error
    if not isinstance(record, dict):
        raise DataError(f"{where}: {type(record).__name__} instead of a JSON object")
    return record
