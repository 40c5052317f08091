"""The products of a shop, on disk.

    items_shuffle.json, items_ins.json -> ProductStore.open -> parsed once, kept, memory-mapped
    ASIN -> ProductStore.product -> Product

A process holds none of the products: a million of them cost it no memory.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import orjson

from mem1.errors import DataError
from mem1.files import derived_folder
from mem1.tasks.webshop.records import read_products

STORE_FORMAT = 1
"""Raise it when what is stored changes."""

_RECORDS, _OFFSETS, _ASINS, _ROWS, _GOALS = (
    "products.jsonl",
    "offsets.npy",
    "asins.npy",
    "rows.npy",
    "num_goals.npy",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """What the shop sells."""

    asin: str
    title: str
    description: str
    bullet_points: tuple[str, ...]
    """The page `Features`."""
    prices: tuple[float, ...]
    """Dollars: one, or the least and the most."""
    options: Mapping[str, tuple[str, ...]]
    """Values by the option's name, lower case: `{"size": ("small", "large")}`."""
    attributes: tuple[str, ...]
    """What it's known for, `("machine wash", …)`; hidden, rewards compare it."""
    category: str
    query: str
    """The search at Amazon that found it."""
    product_category: str
    """Its path in the catalogue, with › between."""
    instruction: str | None
    """What WebShop made of its attributes for those who want to buy it; None if nothing."""
    instruction_attributes: tuple[str, ...]

    @property
    def price(self) -> float:
        """Dollars it costs. Of a range WebShop draws one anew for each process; here it's always
        the same."""
        if len(self.prices) == 1:
            return self.prices[0]
        return random.Random(self.asin).uniform(*self.prices)

    @property
    def price_tag(self) -> str:
        """The price as pages show it."""
        return " to ".join(f"${price}" for price in self.prices)


class ProductStore:
    """The products of a file, by ASIN, and by row, in the file's order."""

    def __init__(self, folder: Path) -> None:
        """Open a store; use `ProductStore.open`, which makes it first where needed."""
        self.corpus = folder / _RECORDS
        """JSONL with `id` (the ASIN) and `contents`, for a search engine."""
        self._bytes = np.memmap(self.corpus, dtype=np.uint8, mode="r")
        self._offsets = np.load(folder / _OFFSETS, mmap_mode="r")
        self._asins = np.load(folder / _ASINS, mmap_mode="r")
        self._rows = np.load(folder / _ROWS, mmap_mode="r")
        self.num_goals = np.load(folder / _GOALS, mmap_mode="r")
        """Combinations of options of each product with an instruction, shape (len(self),)."""

    @classmethod
    def open(
        cls,
        products: Path,
        *,
        attributes: Path | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> "ProductStore":
        """Open the products of WebShop's files, read at the first time.

        Args: `products`, `items_shuffle*.json`; `attributes`, `items_ins*.json`; both may be
        `.gz`; `on_progress(done, 0)` is called while reading.
        Raises: DataError for a file that is missing or malformed.
        """
        for path in filter(None, (products, attributes)):
            if not path.is_file():
                raise DataError(f"{path}: no such file (looked at {path.absolute()})")
        progress = on_progress or (lambda done, total: None)
        known = _identity(attributes) if attributes else ""
        folder = derived_folder(
            products,
            kind="webshop",
            version=f"{STORE_FORMAT}/{known}",
            build=lambda empty: _build(products, attributes, empty, on_progress=progress),
        )
        return cls(folder)

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, asin: str) -> int | None:
        """Where a product stands in the file; None if it isn't there."""
        key = np.bytes_(asin.encode("ascii", "replace"))
        place = int(np.searchsorted(self._asins, key))
        found = place < len(self) and self._asins[place] == key
        return int(self._rows[place]) if found else None

    def __getitem__(self, row: int) -> Product:
        start, end = self._offsets[row : row + 2]
        record = orjson.loads(self._bytes[start:end].tobytes())
        del record["id"], record["contents"]
        options = {name: tuple(values) for name, values in record.pop("options").items()}
        lists = {name: tuple(v) for name, v in record.items() if isinstance(v, list)}
        return Product(**{**record, **lists, "options": options})

    def product(self, asin: str) -> Product:
        """Raises: DataError if there's no such product."""
        row = self.row(asin)
        if row is None:
            raise DataError(f"there's no product {asin} among the {len(self)} of {self.corpus}")
        return self[row]


def _identity(path: Path) -> str:
    stat = path.stat()
    return f"{path.resolve()}/{stat.st_size}/{stat.st_mtime_ns}"


def _build(
    products: Path,
    attributes: Path | None,
    folder: Path,
    *,
    on_progress: Callable[[int, int], None],
) -> None:
    asins: list[bytes] = []
    offsets, num_goals = [0], list[int]()
    with (folder / _RECORDS).open("wb") as file:
        for record in read_products(products, attributes):
            file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
            offsets.append(file.tell())
            asins.append(record["asin"].encode("ascii", "replace"))
            combinations = prod(map(len, record["options"].values()))
            num_goals.append(combinations if record["instruction"] else 0)
            if len(asins) % 1000 == 0:
                on_progress(len(asins), 0)
    keys = np.array(asins, dtype="S10")
    rows = np.argsort(keys, kind="stable")
    np.save(folder / _OFFSETS, np.array(offsets, dtype=np.int64))
    np.save(folder / _ASINS, keys[rows])
    np.save(folder / _ROWS, rows)
    np.save(folder / _GOALS, np.array(num_goals, dtype=np.int64))
