"""Recorded sessions of people on WebShop's site -> the same steps in our shop.

    sessions -> StandIn, a shop of the products they saw -> replay -> counts

The products are on the full site, so all that's known of one is its ASIN, the options that were
chosen and its price; the results of a search are those that were recorded. What can be checked is
the way: after each step we must be on the same page, with the same products listed, the same
product open and the same options chosen, and in the end the same must be bought.
"""

import json
import re
from ast import literal_eval
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from mem1.envs import Observation
from mem1.envs.webshop import BACK_TO_SEARCH, NEXT, PAGE_SIZE, PREVIOUS, Shop, WebShopEnv
from mem1.tasks.webshop import ProductStore
from mem1.types import Action, Objective, Task

_BUTTONS = (BACK_TO_SEARCH, NEXT, PREVIOUS)


class StandIn(Shop):
    """A shop of the products that were seen, whose searches find what was found."""

    def __init__(self, sessions: Sequence[Any], *, folder: Path) -> None:
        prices: dict[str, float] = {}
        options: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        self._found: dict[str, dict[int, list[str]]] = defaultdict(dict)
        for step in (step for session in sessions for step in session["steps"]):
            content = step.get("content", {})
            if step["page"] == "search_results":
                words = " ".join(content["keywords"]).lower().strip()
                self._found[words][content["page"]] = content["search_result_asins"]
            for asin in content.get("search_result_asins", [content.get("asin")]):
                if asin:
                    prices[asin] = content.get("price", prices.get(asin, 1.0))
            for name, value in content.get("options", {}).items():
                options[content["asin"]][name].add(value)
        items = [_item(asin, options[asin], price=price) for asin, price in prices.items()]
        path = folder / "items.json"
        path.write_text(json.dumps(items))
        self.products = ProductStore.open(path)
        self._any = [item["asin"] for item in items]

    async def search(self, keywords: str) -> tuple[str, ...]:
        """Pages that nobody looked at hold any products: that they're there is all that matters."""
        pages = {n: found for n, found in self._found[keywords].items() if found}
        return tuple(
            asin
            for n in range(1, max(pages, default=0) + 1)
            for asin in pages.get(n, self._any[:PAGE_SIZE])
        )


def _item(asin: str, options: dict[str, set[str]], *, price: float) -> dict[str, Any]:
    return {
        "asin": asin,
        "name": asin,
        "full_description": f"description of {asin}",
        "small_description": [f"features of {asin}"],
        "pricing": f"${price}",
        **dict.fromkeys(("category", "query", "product_category"), ""),
        "customization_options": {
            name: [{"value": value} for value in sorted(values)] for name, values in options.items()
        },
    }


async def replay(sessions: Sequence[Any], *, folder: Path) -> dict[str, int]:
    """How many steps are actions of ours that show what they showed, and end in the same purchase.

    The others are done by the browser alone (reloading, going back, another tab), or lead to and
    from empty pages behind the last one, which ours doesn't offer.
    """
    shop = StandIn(sessions, folder=folder)
    counts: Counter[str] = Counter()
    for session in sessions:
        first, *steps = session["steps"]
        env = WebShopEnv(_task(first["goal"]), shop=shop, observation_tokens=10**6)
        before = first
        for step in steps:
            action = _action(before, step)
            beyond = _beyond(before) or _beyond(step)
            before = step
            counts["steps"] += 1
            if beyond:
                counts["to and from an empty page"] += 1
                continue
            if action is None:
                counts["by the browser alone"] += 1
                await _go(env, step)
                continue
            seen = await env.step(Action(name="answer", argument=action), faults=())
            kind = "purchases" if step["page"] == "done" else "actions"
            counts[kind] += 1
            counts[f"{kind} with equal result"] += _there(env, step, seen)
    return dict(counts)


def _task(goal: Any) -> Task:
    known = {
        "asin": goal["asin"],
        "instruction": goal["instruction_text"],
        "attributes": goal["attributes"],
        "options": goal["goal_options"],
        "price_upper": goal["price_upper"],
    }
    objective = Objective(question=goal["instruction_text"], answers=())
    return Task(id="recorded", objectives=(objective,), metadata={"webshop": {"goal": known}})


def _beyond(step: Any) -> bool:
    return step["page"] == "search_results" and not step["content"]["search_result_asins"]


def _action(before: Any, after: Any) -> str | None:
    """What led from one recorded page to the next; None if only a browser can."""
    old, new = before.get("content", {}), after.get("content", {})
    match before["page"], after["page"]:
        case "search_results" | "item_page" | "item_sub_page", "index":
            return "click[back to search]"
        case "index", "search_results":
            return f"search[{' '.join(new['keywords'])}]"
        case "search_results", "search_results":
            return {1: "click[next >]", -1: "click[< prev]"}.get(new["page"] - old["page"])
        case "item_page", "search_results":
            return "click[< prev]"
        case "search_results", "item_page":
            return f"click[{new['asin']}]"
        case "item_page", "item_page" if old["asin"] == new["asin"]:
            chosen = [new["options"][n] for n, _ in new["options"].items() - old["options"].items()]
            kept = old["options"].keys() <= new["options"].keys()
            return f"click[{chosen[0]}]" if kept and len(chosen) == 1 else None
        case "item_sub_page", "item_page":
            return "click[< prev]"
        case "item_page", "item_sub_page":
            return f"click[{_sub_page(after)}]"
        case "item_page", "done":
            return "click[buy now]"
    return None


def _sub_page(step: Any) -> str:
    return step["url"].split("/")[-2].lower()


def _there(env: WebShopEnv, step: Any, seen: Observation) -> bool:
    """Whether what's seen is what was recorded."""
    content, first = step.get("content", {}), seen.text.partition("\n")[0]
    match step["page"]:
        case "index":
            return first == "WebShop"
        case "search_results":
            found = [click.upper() for click in env.clicks() if click not in _BUTTONS]
            page = f"Page {content['page']} "
            return first.startswith(page) and found == content["search_result_asins"]
        case "item_page":
            chosen = re.findall(r"^(.+) \(chosen: (.+?)\): ", seen.text, re.MULTILINE)
            return first == content["asin"] and dict(chosen) == content["options"]
        case "item_sub_page":
            name = _sub_page(step)
            return first == (
                "No reviews found" if name == "reviews" else f"{name} of {content['asin']}"
            )
        case _:
            bought = orjson.loads(seen.outcome or "{}")
            return bought == {"asin": content["asin"], "options": content["options"]}


async def _go(env: WebShopEnv, step: Any) -> None:
    """Do what the browser did, by actions."""
    content = step.get("content", {})
    actions = ["click[back to search]"]
    if content:
        words = content["keywords"]
        words = literal_eval(words) if isinstance(words, str) else words
        actions += [f"search[{' '.join(words)}]"]
        actions += ["click[next >]"] * (int(content["page"]) - 1)
    if "asin" in content:
        actions += [f"click[{content['asin']}]"]
        actions += [f"click[{value}]" for value in content["options"].values()]
    for action in actions:
        await env.step(Action(name="answer", argument=action), faults=())
