"""WebShop's product files -> records, one at a time, however large the file is.

    items_shuffle.json, items_ins.json -> read_products -> record, record, …

What a record holds, and how its values are made from the file's, is what WebShop's own loader does.
"""

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import orjson

from mem1.errors import DataError

_CHUNK = 1 << 22
_LARGEST = 1 << 26
"""Characters that one product may take: a file with a longer one is broken."""
_GAP = re.compile(r"[\s,]*")
NO_PRICE = 100.0
"""Dollars that a product without a price costs."""
_ATTRIBUTES_UNKNOWN = "DUMMY_ATTR"


def read_products(products: Path, attributes: Path | None) -> Iterator[dict[str, Any]]:
    """The records of a product file, without those that have no proper ASIN or one seen before.

    Args: `products`, a JSON array or JSONL (.gz) of WebShop's items; `attributes`, its
    `items_ins*.json`, which gives attributes and instructions by ASIN.
    Raises: DataError naming the product that is malformed.
    """
    known = read_table(attributes) if attributes else {}
    seen: set[str] = set()
    number = 0
    for number, raw in read_elements(products):
        try:
            asin = str(raw["asin"])
            if asin == "nan" or not 0 < len(asin) <= 10 or asin in seen:
                continue
            record = _record(raw, known.get(asin, {}))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"{products}: product {number}: {error!r}: it needs asin, name, category, query, "
                "product_category, and pricing, customization_options as WebShop has them"
            ) from error
        seen.add(asin)
        yield record
    if not number:
        raise DataError(f"{products}: holds no product")


def read_table(path: Path) -> dict[str, Any]:
    """A JSON object (.gz) of things by ASIN. Raises: DataError if it's something else."""
    try:
        data = path.read_bytes()
        found = orjson.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    except (OSError, EOFError, zlib.error, orjson.JSONDecodeError) as error:
        raise DataError(f"{path}: can't be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: holds a {type(found).__name__}: give an object, by ASIN")
    return found


def read_elements(path: Path) -> Iterator[tuple[int, Any]]:
    """The elements of a JSON array, or of JSONL (.gz), numbered from 1; never the whole file.

    Raises: DataError naming the element that is malformed.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            yield from enumerate(_elements(file, path=path), start=1)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file (looked at {path.absolute()})") from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: can't be read: {error}") from error


def _elements(file: TextIO, *, path: Path) -> Iterator[Any]:
    decode = json.JSONDecoder().raw_decode
    buffer = file.read(_CHUNK)
    position = _behind_gap(buffer, 0)
    in_array = buffer[position : position + 1] == "["
    position += in_array
    number = 0
    while True:
        position = _behind_gap(buffer, position)
        if in_array and buffer[position : position + 1] == "]":
            return
        try:
            element, position = decode(buffer, position)
        except json.JSONDecodeError as error:
            # Cut off, or broken: more text tells.
            more = file.read(_CHUNK) if len(buffer) - position < _LARGEST else ""
            if not more:
                if not in_array and position == len(buffer):
                    return
                raise DataError(f"{path}: product {number + 1}: not JSON: {error.msg}") from error
            buffer, position = buffer[position:] + more, 0
        else:
            number += 1
            yield element


def _behind_gap(text: str, position: int) -> int:
    gap = _GAP.match(text, position)
    return gap.end() if gap else position


def _record(raw: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a product. Args: `known`, its entry in the attribute file."""
    bullets = raw.get("small_description") or []
    record = {
        "asin": str(raw["asin"]),
        "title": str(raw["name"]),
        "description": str(raw.get("full_description") or ""),
        "bullet_points": [str(b) for b in (bullets if isinstance(bullets, list) else [bullets])],
        "prices": _prices(raw.get("pricing")),
        "options": _options(raw.get("customization_options") or {}),
        "attributes": [str(a) for a in known.get("attributes", [_ATTRIBUTES_UNKNOWN])],
        "category": str(raw["category"]),
        "query": str(raw["query"]).lower().strip(),
        "product_category": str(raw["product_category"]),
        "instruction": known.get("instruction"),
        "instruction_attributes": known.get("instruction_attributes") or [],
    }
    return {"id": record["asin"], "contents": _searched(record), **record}


def _prices(pricing: str | None) -> list[float]:
    """`$5.00` -> [5.0]; `$5.00 to $7.50` -> [5.0, 7.5]."""
    found = [float(re.sub(r"[^\d.]", "", part)) for part in (pricing or "").split("$")[1:]]
    return found[:2] or [NO_PRICE]


def _options(raw: dict[str, Any]) -> dict[str, list[str]]:
    """Values by the name of the option, all in lower case."""
    return {
        name.lower(): [str(value["value"]).strip().replace("/", " | ").lower() for value in values]
        for name, values in raw.items()
        if values is not None
    }


def _searched(record: dict[str, Any]) -> str:
    """The text that the search engine sees."""
    options = (f"{name}: {', '.join(values)}" for name, values in record["options"].items())
    parts = (
        record["title"],
        record["description"],
        *(record["bullet_points"][:1] or [""]),
        ", and ".join(options),
    )
    return " ".join(parts).lower()
