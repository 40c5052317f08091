"""A web shop: the text world of WebShop (Yao et al. 2022, arXiv 2207.01206), without its servers.

    ProductStore -> Shop -> WebShopEnv, one for each episode
    search[keywords] -> results -> click[asin] -> item -> click[option] … click[buy now] -> done

Pages hold what WebShop's hold, as lines of text. Nothing is shared between episodes but the shop,
which never changes.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import orjson

from mem1.envs.base import Observation
from mem1.envs.prompts import WEBSHOP_PROMPT
from mem1.tasks.webshop import Product, ProductStore, goal_of
from mem1.text import ANSWER_TAG, neutralise
from mem1.tools import BM25Index
from mem1.types import Action, Fault, Task

NUM_RESULTS = 50
"""Products that a search finds at most."""
PAGE_SIZE = 10
BACK_TO_SEARCH, NEXT, PREVIOUS, BUY = "back to search", "next >", "< prev", "buy now"
SUB_PAGES = ("description", "features", "reviews")

_ACTION = re.compile(r"\s*(search|click)\s*\[(.*)\]\s*", re.DOTALL | re.IGNORECASE)
TOKEN_CHARS = 2
"""Characters of a page for each token of an observation: pages are full of ASINs and numbers."""
_TAG_TOKENS = 40
"""Of the observation's tags and the hint."""
K1, B = 0.9, 0.4
"""BM25's parameters in WebShop's search engine, Lucene by Pyserini."""


class Shop:
    """Products, and a search engine over them."""

    def __init__(
        self,
        products: ProductStore,
        *,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Args: `on_progress(done, total)`, called while products are indexed, total 0 while
        unknown: that's done once."""
        self.products = products
        self._index = BM25Index.open(products.corpus, k1=K1, b=B, on_progress=on_progress)

    async def search(self, keywords: str) -> tuple[str, ...]:
        """ASINs of what fits, best first."""
        found = await self._index.search(keywords, top_k=NUM_RESULTS)
        return tuple(passage.id for passage in found)


@dataclass(slots=True, kw_only=True)
class _Place:
    """Where the agent is in the shop."""

    page: Literal["start", "results", "item", "description", "features", "reviews"] = "start"
    results: tuple[str, ...] = ()
    number: int = 1
    """Of the page of results."""
    product: Product | None = None
    options: dict[str, str] = field(default_factory=dict[str, str])
    """Values that were chosen for this product."""


class WebShopEnv:
    """An `Env`: the agent looks for a product and buys one, which ends the episode."""

    def __init__(
        self,
        task: Task,
        *,
        shop: Shop,
        observation_tokens: int = 1000,
        prompt: str = WEBSHOP_PROMPT,
    ) -> None:
        """Args: `observation_tokens`, what an observation may have: a longer page is cut before the
        actions, which take half of it at most; `prompt`, with `{instruction}`, and if wanted
        `{max_turns}` and `{state_tokens}`.

        Raises: DataError if it's no task of a shop.
        """
        self._goal, self._shop, self._prompt = goal_of(task), shop, prompt
        self._room = TOKEN_CHARS * max(observation_tokens - _TAG_TOKENS, 0)
        self._at = _Place()

    @property
    def actions(self) -> tuple[str, ...]:
        return (ANSWER_TAG,)

    async def start(self, *, max_turns: int, state_tokens: int) -> str:
        prompt = self._prompt.replace("{max_turns}", str(max_turns))
        prompt = prompt.replace("{state_tokens}", str(state_tokens))
        return prompt.replace("{instruction}", neutralise(self._goal.instruction))

    async def step(self, action: Action | None, *, faults: tuple[Fault, ...]) -> Observation:
        if action is None:
            return self._show("Your last reply had no valid action.")
        match = _ACTION.fullmatch(action.argument)
        if match is None:
            return self._show(f"{action.argument!r} is neither search[keywords] nor click[button].")
        name, argument = match[1].lower(), match[2].strip().lower()
        if name == "search":
            return await self._search(argument)
        if argument not in self.clicks():
            return self._show(f"There's no {argument!r} to click here.")
        if argument == BUY and self._at.product:
            purchase = {"asin": self._at.product.asin, "options": self._at.options}
            return Observation(text="", done=True, outcome=orjson.dumps(purchase).decode())
        self._click(argument)
        return self._show()

    async def close(self) -> None:
        pass

    async def _search(self, keywords: str) -> Observation:
        """As in WebShop, from any page, though only the first one names it."""
        if not keywords:
            return self._show("A search needs keywords: search[keywords].")
        self._at = _Place(page="results", results=await self._shop.search(keywords))
        return self._show()

    def _click(self, button: str) -> None:
        """Args: `button`, one of `clicks`, but not to buy."""
        at = self._at
        if button == BACK_TO_SEARCH:
            self._at = _Place()
        elif at.page == "results":
            if button in (NEXT, PREVIOUS):
                at.number += 1 if button == NEXT else -1
            else:
                at.page, at.product = "item", self._shop.products.product(button.upper())
        elif button == PREVIOUS and at.page == "item":
            self._at = _Place(page="results", results=at.results, number=at.number)
        elif button == PREVIOUS:
            at.page = "item"
        elif button in SUB_PAGES:
            at.page = button
        elif at.product:
            names = [name for name, values in at.product.options.items() if button in values]
            at.options[names[-1]] = button

    def clicks(self) -> list[str]:
        """What can be clicked here, buttons before options."""
        at = self._at
        if at.page == "start":
            return []
        if at.page == "results":
            more = at.number * PAGE_SIZE < len(at.results)
            buttons = [BACK_TO_SEARCH, *[PREVIOUS] * (at.number > 1), *[NEXT] * more]
            return [*buttons, *(asin.lower() for asin in self._listed())]
        if at.page == "item" and at.product:
            options = (value for values in at.product.options.values() for value in values)
            return [BACK_TO_SEARCH, PREVIOUS, *SUB_PAGES, BUY, *dict.fromkeys(options)]
        return [BACK_TO_SEARCH, PREVIOUS]

    def _listed(self) -> tuple[str, ...]:
        """The products on this page of results."""
        return self._at.results[(self._at.number - 1) * PAGE_SIZE :][:PAGE_SIZE]

    def _show(self, problem: str = "") -> Observation:
        """This page, after what was wrong with the last action, and what can be done now."""
        names = ["search[keywords]"] if self._at.page == "start" else []
        actions = _joined([*names, *(f"click[{c}]" for c in self.clicks())], self._room // 2)
        page = "\n".join([*[problem] * bool(problem), *self._page()])
        end = f"\nCurrent available actions: {actions}"
        return Observation(text=_cut(page, max(self._room - len(end), 0)) + end)

    def _page(self) -> Iterator[str]:
        at = self._at
        if at.page == "start":
            yield "WebShop"
        elif at.page == "results":
            yield f"Page {at.number} (Total results: {len(at.results)})"
            for asin in self._listed():
                product = self._shop.products.product(asin)
                yield f"{asin} {product.title} {product.price_tag}"
        elif at.product:
            yield from _product_page(at.product, at=at)


def _product_page(product: Product, *, at: _Place) -> Iterator[str]:
    match at.page:
        case "description":
            yield product.description
        case "features":
            yield from product.bullet_points or ("No features found",)
        case "reviews":
            yield "No reviews found"
        case _:
            yield product.title
            yield f"Price: {product.price_tag}"
            yield "Rating: N.A."
            for name, values in product.options.items():
                chosen = f" (chosen: {at.options[name]})" if name in at.options else ""
                yield f"{name}{chosen}: {' | '.join(values)}"


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: max(room - 1, 0)]}…"


def _joined(actions: list[str], room: int) -> str:
    """A list of actions, as many as there's room for."""
    shown, length = [], 0
    for action in actions:
        length += len(action) + 2
        if length > room:
            return f"[{', '.join(shown)}, …]"
        shown.append(action)
    return f"[{', '.join(shown)}]"
