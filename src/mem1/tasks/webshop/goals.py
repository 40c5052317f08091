"""WEBSHOP'S INSTRUCTIONS -> TASKS: what somebody wants to buy.

    items_human_ins.json, or the instructions of items_ins.json -> load_goals -> [Task]
    Task -> goal_of -> Goal;  Task -> products_of -> the products it's about

Goals come in WebShop's order: shuffled with seed 233. Of all 12,087 human instructions, its test
set is the first 500, the next 1,000 are its development set, and the others are for training.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mem1.errors import ConfigError, DataError
from mem1.tasks.webshop.products import Product, ProductStore
from mem1.tasks.webshop.records import read_table
from mem1.types import Objective, Task

WEBSHOP = "webshop"
"""Source of the tasks, and key of their metadata."""
_ORDER_SEED = 233
_PRICES = tuple(10.0 * step for step in range(1, 100))
"""Dollars that a limit may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebShopConfig:
    """Which shop, and which goals."""

    products: str
    """WebShop's `items_shuffle*.json`, of any size; `.gz` too."""
    attributes: str | None = None
    """Its `items_ins*.json`: attributes and synthetic instructions."""
    instructions: str | None = None
    """Its `items_human_ins.json`; None: the synthetic instructions of `attributes`."""
    start: int = 0
    """Number of the first goal, in WebShop's order."""
    count: int | None = None
    """Goals; None: all from `start` on."""
    seed: int = 0
    """Of the price limits, which WebShop draws anew for each process."""

    def __post_init__(self) -> None:
        if self.attributes is None and self.instructions is None:
            raise ConfigError(
                "tasks.instructions is missing: name WebShop's items_human_ins.json, or, for "
                "synthetic goals, its items_ins.json as tasks.attributes"
            )
        if self.start < 0 or (self.count is not None and self.count < 1):
            raise ConfigError(
                f"tasks.start = {self.start}, tasks.count = {self.count}: give at least 0 and 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What is wanted, and the product that somebody had in mind."""

    asin: str
    instruction: str
    attributes: tuple[str, ...]
    options: tuple[str, ...]
    price_upper: float | None
    """Dollars it may cost; None: no limit is stated."""


def load_goals(config: WebShopConfig, *, limit: int | None = None) -> list[Task]:
    """The tasks of a shop. Args: `limit`, at most so many.

    Raises: DataError for files that are missing or malformed, ConfigError if no goal is there.
    """
    store = open_products(config.products, config.attributes)
    if config.instructions:
        found = _human_goals(store, path=Path(config.instructions), seed=config.seed)
        goals: Sequence[Goal] = found
    else:
        goals = _SyntheticGoals(store, seed=config.seed)
    order = list(range(len(goals)))
    random.Random(_ORDER_SEED).shuffle(order)
    chosen = order[config.start :][: config.count][:limit]
    if not chosen:
        raise ConfigError(
            f"tasks.start = {config.start}: the shop has {len(goals)} goals, counted from 0"
        )
    return [_task(config, goals[number], number=number) for number in chosen]


def goal_of(task: Task) -> Goal:
    """Raises: DataError if it's no task of a shop."""
    goal = _metadata(task)["goal"]
    lists = {name: tuple(value) for name, value in goal.items() if isinstance(value, list | tuple)}
    return Goal(**{**goal, **lists})


def products_of(task: Task) -> ProductStore:
    """The products that a task's shop sells. Raises: DataError if it's no task of a shop."""
    files = _metadata(task)
    return open_products(files["products"], files["attributes"])


@lru_cache(maxsize=4)
def open_products(products: str, attributes: str | None) -> ProductStore:
    """The products of some files, opened once in a process."""
    return ProductStore.open(Path(products), attributes=Path(attributes) if attributes else None)


def _metadata(task: Task) -> Any:
    if WEBSHOP not in task.metadata:
        raise DataError(f"task {task.id} is none of a shop: its metadata needs {WEBSHOP!r}")
    return task.metadata[WEBSHOP]


def _task(config: WebShopConfig, goal: Goal, *, number: int) -> Task:
    files = {"products": config.products, "attributes": config.attributes}
    return Task(
        id=f"webshop-{'human' if config.instructions else 'synthetic'}-s{config.seed}-{number:06d}",
        objectives=(Objective(question=goal.instruction, answers=()),),
        source=WEBSHOP,
        metadata={WEBSHOP: {**files, "goal": asdict(goal)}},
    )


def _human_goals(store: ProductStore, *, path: Path, seed: int) -> list[Goal]:
    """Goals of people's instructions, in the order of the products; those without attributes are
    left out, as in WebShop."""
    table = read_table(path)
    rows = {asin: row for asin in table if (row := store.row(asin)) is not None}
    goals: list[Goal] = []
    for asin in sorted(rows, key=rows.__getitem__):
        product = store[rows[asin]]
        for number, wish in enumerate(table[asin]):
            try:
                attributes = tuple(map(str, wish["instruction_attributes"]))
                options = tuple(map(str, wish["instruction_options"]))
                text = str(wish["instruction"]).strip(".")
            except (LookupError, TypeError) as error:
                raise DataError(f"{path}: {asin}, instruction {number + 1}: {error!r}") from error
            if attributes:
                limit = _limit(product, seed=f"{seed}/{asin}/{number}")
                goals.append(
                    Goal(
                        asin=asin,
                        instruction=text + _limit_text(limit),
                        attributes=attributes,
                        options=options,
                        price_upper=limit,
                    )
                )
    return goals


class _SyntheticGoals(Sequence[Goal]):
    """A goal for each combination of options of each product with an instruction; made when asked
    for, since there are millions."""

    def __init__(self, store: ProductStore, *, seed: int) -> None:
        self._store, self._seed = store, seed
        self._ends = np.cumsum(store.num_goals)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, number: int) -> Goal:  # pyright: ignore[reportIncompatibleMethodOverride]
        row = int(np.searchsorted(self._ends, number, side="right"))
        product = self._store[row]
        combination = number - int(self._ends[row] - self._store.num_goals[row])
        options = dict(_combination(product, combination))
        limit = _limit(product, seed=f"{self._seed}/{product.asin}")
        said = ", and ".join(f"{name}: {value}" for name, value in options.items())
        text = f"{product.instruction} with {said}" if said else f"{product.instruction}"
        return Goal(
            asin=product.asin,
            instruction=text + _limit_text(limit),
            attributes=product.instruction_attributes,
            options=tuple(options.values()),
            price_upper=limit,
        )


def _combination(product: Product, number: int) -> Iterator[tuple[str, str]]:
    """The options of the combination with this number; the last name's values change fastest."""
    names = sorted(product.options)
    places = np.unravel_index(number, [len(product.options[name]) for name in names])
    for name, place in zip(names, places, strict=True):
        yield name, product.options[name][place]


def _limit(product: Product, *, seed: str) -> float | None:
    """A price limit a little over the price; None for what is too dear to have one."""
    above = [price for price in _PRICES if price > product.price][:4]
    return max(random.Random(seed).sample(above, 2)) if len(above) >= 2 else None


def _limit_text(limit: float | None) -> str:
    return f", and price lower than {limit:.2f} dollars" if limit is not None else ""
