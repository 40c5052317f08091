"""Check the shop against WebShop's own data and code, and measure how fast it is.

    python benchmarks/webshop.py DATA [--webshop CLONE] [--copies N]

DATA is a folder with WebShop's 1,000 products (items_shuffle_1000.json.gz,
items_ins_v2_1000.json.gz, items_human_ins_1000subset.json.gz), the documents of its index
(webshop_docs_1000.jsonl.gz) and recorded sessions of people (human_trajectories_50.jsonl.gz).
CLONE is a clone of github.com/princeton-nlp/WebShop: with it (and thefuzz, flask, beautifulsoup4)
rewards and pages are compared with what its code gives; spaCy's model, which its reward asks for
nouns, is replaced by our word list on both sides. --copies makes a shop of N times 1,000 products
and measures what opening it takes. Writes docs/results/webshop.json, where the figures of what
wasn't asked for stay those of the last time.
"""

import argparse
import asyncio
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import types
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from webshop_sessions import replay

from mem1.envs.webshop import Shop, WebShopEnv
from mem1.files import atomic_write
from mem1.rewards.webshop import content_words, score_purchase
from mem1.tasks.webshop import ProductStore, WebShopConfig, goal_of, load_goals, products_of
from mem1.types import Action, Task

RESULT = Path(__file__).parent.parent / "docs/results/webshop.json"
SESSIONS = 500
STEPS = 20
"""Of each session, in the measurement of speed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--webshop", type=Path)
    parser.add_argument("--copies", type=int, default=0)
    options = parser.parse_args()
    tasks = goals(options.data)
    shop = Shop(products_of(tasks["synthetic"][0]))
    command = f"OMP_NUM_THREADS=1 python benchmarks/webshop.py {' '.join(sys.argv[1:])}"
    found: dict[str, Any] = json.loads(RESULT.read_bytes()) if RESULT.exists() else {}
    found |= {
        "command": command,
        "goals": {name: len(some) for name, some in tasks.items()},
        "documents": check_documents(shop.products, data=options.data),
        "sessions": check_sessions(options.data),
        "speed": asyncio.run(speed(shop, tasks["synthetic"])),
    }
    if options.webshop:
        found["code"] = check_code(options.webshop, options.data, shop=shop, tasks=tasks)
    if options.copies:
        large = large_shop(options.data, copies=options.copies)
        found["large shop"] = {"command": command, **large}
    told = orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"
    atomic_write(RESULT, told)
    print(told.decode())


def goals(data: Path) -> dict[str, list[Task]]:
    files = {
        "products": str(data / "items_shuffle_1000.json.gz"),
        "attributes": str(data / "items_ins_v2_1000.json.gz"),
    }
    human = str(data / "items_human_ins_1000subset.json.gz")
    return {
        "synthetic": load_goals(WebShopConfig(**files)),
        "human": load_goals(WebShopConfig(**files, instructions=human)),
    }


def check_documents(store: ProductStore, *, data: Path) -> dict[str, int]:
    """Products whose fields equal those that WebShop parsed, and the text it indexed."""
    indexed = {record["id"]: record["contents"] for record in lines(store.corpus)}
    counts: Counter[str] = Counter()
    for record in lines(data / "webshop_docs_1000.jsonl.gz"):
        mine, theirs = store.product(record["id"]), record["product"]
        counts["products"] += 1
        counts["indexed text"] += indexed[mine.asin] == record["contents"]
        counts["title"] += mine.title == theirs["Title"]
        counts["price shown"] += mine.price_tag == theirs["Price"]
        counts["options"] += {k: [*v] for k, v in mine.options.items()} == theirs["options"]
        counts["attributes"] += [*mine.attributes] == theirs["Attributes"]
        counts["features"] += [*mine.bullet_points] == theirs["BulletPoints"]
        counts["description"] += mine.description == theirs["Description"]
    return dict(counts)


def check_sessions(data: Path) -> dict[str, Any]:
    """How many recorded purchases obey the formula of the total and that of the type, by the parts
    that were recorded: their products aren't among the 1,000, so the parts can't be checked. And
    how many steps can be done again, see `webshop_sessions`."""
    counts: Counter[str] = Counter()
    sessions = [*lines(data / "human_trajectories_50.jsonl.gz")]
    with tempfile.TemporaryDirectory() as folder:
        replayed = asyncio.run(replay(sessions, folder=Path(folder)))
    for session in sessions:
        end = session["steps"][-1]
        goal, parts, bought = end["goal"], end["reward_info"], end["content"]
        wishes = len(goal["attributes"]) + len(goal["goal_options"]) + 1
        met = parts["r_att"] * len(goal["attributes"]) + parts["r_price"]
        met += (parts.get("r_option") or 0) * len(goal["goal_options"])
        title = parts["title_score"]
        same = parts["query_match"] or parts["category_match"] or title > 0.2
        kind = 0.0 if title == 0 else 0.1 if title < 0.1 else 1.0 if same else 0.5
        counts["sessions"] += 1
        counts["total"] += abs(parts["r_type"] * met / wishes - end["reward"]) < 1e-9
        counts["type"] += kind == parts["r_type"]
        counts["price"] += (bought["price"] <= goal["price_upper"]) == parts["r_price"]
    return {**counts, "replayed": replayed}


def lines(path: Path) -> Iterator[Any]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        for line in file:
            yield json.loads(line)


async def speed(shop: Shop, tasks: list[Task]) -> dict[str, float]:
    """Steps a second of sessions that take turns: searches, clicks at random."""
    rng = random.Random(0)
    envs = [WebShopEnv(tasks[k], shop=shop) for k in range(SESSIONS)]
    for env in envs:
        await env.start(max_turns=STEPS, state_tokens=1)
    done, started = 0, time.process_time()
    for step in range(STEPS):
        for number, env in enumerate(envs):
            at = (step + number) % 7
            words = goal_of(tasks[number]).instruction
            clicks = [c for c in env.clicks() if c not in ("buy now", "back to search")]
            text = f"search[{words}]" if at == 0 or not clicks else f"click[{rng.choice(clicks)}]"
            await env.step(Action(name="answer", argument=text), faults=())
            done += 1
    return {"sessions": SESSIONS, "steps": done, "a second": done / (time.process_time() - started)}


def large_shop(data: Path, *, copies: int) -> dict[str, float]:
    """What a shop of many products costs, first and afterwards; each in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.json"
        items = json.loads(gzip.decompress((data / "items_shuffle_1000.json.gz").read_bytes()))
        with path.open("w") as file:
            for copy in range(copies):
                for number, item in enumerate(items):
                    asin = f"C{1000 * copy + number:09d}"
                    file.write(
                        ("[" if copy + number == 0 else ",") + json.dumps({**item, "asin": asin})
                    )
            file.write("]")
        size = path.stat().st_size / 2**20
        told = {"products": len(items) * copies, "file, MiB": round(size)}
        for when in ("first", "again"):
            command = [sys.executable, "-c", OPEN, str(path)]
            env = os.environ | {"MEM1_CACHE": folder}
            out = subprocess.run(
                command, env=env, check=True, capture_output=True, text=True
            ).stdout
            told |= {f"{name}, {when}": value for name, value in json.loads(out).items()}
    return told


OPEN = """
import asyncio, json, resource, sys, time
from mem1.envs.webshop import Shop
from mem1.tasks.webshop import open_products
started = time.perf_counter()
shop = Shop(open_products(sys.argv[1], None))
opened = time.perf_counter()
for words in ("red scarf", "wireless headphones", "console table with drawers") * 10:
    asyncio.run(shop.search(words))
print(json.dumps({
    "seconds to open": round(opened - started, 1),
    "search, ms": round((time.perf_counter() - opened) / 30 * 1000, 1),
    "most memory, MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
}))
"""


def check_code(clone: Path, data: Path, *, shop: Shop, tasks: dict[str, list[Task]]) -> Any:
    """Rewards and pages against those of WebShop's own functions."""
    engine, goal = webshop_modules(clone)
    theirs = {
        record["id"]: record["product"] for record in lines(data / "webshop_docs_1000.jsonl.gz")
    }
    rng = random.Random(0)
    counts: Counter[str] = Counter()
    for task in (*tasks["human"], *tasks["synthetic"]):
        wanted = goal_of(task)
        for product in (shop.products.product(wanted.asin), shop.products[rng.randrange(1000)]):
            values = {name: rng.choice(of) for name, of in product.options.items()}
            if product.asin == wanted.asin and rng.random() < 0.5:
                values = {
                    n: v for n, of in product.options.items() for v in of if v in wanted.options
                }
            counts["purchases"] += 1
            counts["rewards equal"] += rewards_agree(
                goal, wanted, product, values, theirs=theirs, store=shop.products
            )
    return {**counts, **asyncio.run(pages_agree(engine, shop, tasks["synthetic"], theirs=theirs))}


def webshop_modules(clone: Path) -> tuple[Any, Any]:
    """WebShop's `engine` and `goal`, with what they import and don't need here left empty."""
    lucene = types.ModuleType("pyserini.search.lucene")
    lucene.LuceneSearcher = object  # type: ignore[attr-defined]
    spacy = types.ModuleType("spacy")
    spacy.load = lambda _name: nouns  # type: ignore[attr-defined]
    sys.modules |= {"pyserini.search.lucene": lucene, "spacy": spacy}
    sys.modules |= {name: types.ModuleType(name) for name in ("cleantext", "pyserini")}
    sys.modules["rank_bm25"] = types.SimpleNamespace(BM25Okapi=object)  # type: ignore[assignment]
    sys.path.insert(0, str(clone))
    from web_agent_site.engine import engine, goal  # pyright: ignore[reportMissingImports]

    return engine, goal


def nouns(name: str) -> list[Any]:
    return [types.SimpleNamespace(text=word, pos_="NOUN") for word in content_words(name)]


def rewards_agree(
    module: Any, wanted: Any, product: Any, values: dict[str, str], *, theirs: Any, store: Any
) -> bool:
    mine = score_purchase(
        product,
        options=[*values.values()],
        goal=wanted,
        wanted=store.product(wanted.asin),
        nouns=content_words,
    )
    aim = theirs[wanted.asin]
    total, parts = module.get_reward(
        theirs[product.asin],
        {
            **{key: aim[key] for key in ("query", "product_category", "name")},
            "attributes": [*wanted.attributes],
            "goal_options": [*wanted.options],
            "price_upper": wanted.price_upper or 1_000_000,
        },
        product.price,
        values,
        verbose=True,
    )
    own = (mine.total, mine.type, mine.title, mine.attributes, mine.options, mine.price)
    names = ("r_type", "title_score", "r_att", "r_option", "r_price")
    return all(
        (a is None and b is None) or abs(a - float(b)) < 1e-9
        for a, b in zip(own, (total, *(parts.get(name) for name in names)), strict=True)
    )


async def pages_agree(engine: Any, shop: Shop, tasks: list[Task], *, theirs: Any) -> dict[str, int]:
    """Whether everything that WebShop's pages say and let one click is on ours: the page of
    results, the item's, and its sub-pages, of each goal's search."""
    counts: Counter[str] = Counter()
    for task in tasks[:: max(len(tasks) // 300, 1)]:
        env = WebShopEnv(task, shop=shop, observation_tokens=10**6)
        words = goal_of(task).instruction.lower().split(" ")
        page = await act(env, f"search[{' '.join(words)}]")
        asins = await shop.search(" ".join(words))
        told = {"session_id": "s", "instruction_text": "", "keywords": words, "page": 1}
        shown = [theirs[asin] for asin in asins[:10]]
        html = render(engine, "search", **told, products=shown, total=len(asins))
        tally(counts, "results", page, env, html, extra=1)
        item = {**told, "asin": asins[0], "product_info": theirs[asins[0]], "options": {}}
        page = await act(env, f"click[{asins[0]}]")
        html = render(engine, "click[item]", **item, show_attrs=False)
        tally(counts, "item", page, env, html)
        for name in ("Description", "Features", "Reviews"):
            page = await act(env, f"click[{name}]")
            tally(counts, name, page, env, render(engine, f"click[{name}]", **item))
            await act(env, "click[< Prev]")
    return dict(counts)


async def act(env: WebShopEnv, text: str) -> str:
    return (await env.step(Action(name="answer", argument=text), faults=())).text


def render(engine: Any, action: str, **told: Any) -> str:
    from flask import Flask  # pyright: ignore[reportMissingImports]

    app = Flask("shop")
    for rule, name in (
        ("/<session_id>", "index"),
        ("/r/<session_id>/<keywords>/<page>", "search_results"),
        ("/i/<session_id>/<asin>/<keywords>/<page>/<options>", "item_page"),
        ("/u/<session_id>/<asin>/<keywords>/<page>/<sub_page>/<options>", "item_sub_page"),
        ("/d/<session_id>/<asin>/<options>", "done"),
    ):
        app.add_url_rule(rule, name, lambda **_: "")
    with app.test_request_context():
        return engine.map_action_to_html(action, **told)


def tally(
    counts: Counter[str], kind: str, page: str, env: WebShopEnv, html: str, *, extra: int = 0
) -> None:
    """Count a page, and whether its texts and its buttons are ours. Args: `extra`, buttons that
    only theirs may have: a next page, after the last one, too."""
    from bs4 import BeautifulSoup, NavigableString  # pyright: ignore[reportMissingImports]

    soup = BeautifulSoup(html, "html.parser")
    for script in soup(["script", "style", "head"]):
        script.decompose()
    buttons = {b.get_text().lower() for b in soup.find_all(class_="btn")}
    buttons |= {link.get_text().lower() for link in soup.find_all(class_="product-link")}
    buttons |= {option.get("value") for option in soup.select('input[type="radio"]')}
    said = [" ".join(t.split()) for t in soup.find_all(string=True) if type(t) is NavigableString]
    ours = " ".join(page.split()).lower()
    texts = [t for t in said if t and t.lower() not in buttons and not t.startswith("Instruction:")]
    missing = [text for text in texts if text.lower() not in ours]
    lacking = buttons - {*env.clicks()}
    counts[f"{kind} pages"] += 1
    counts[f"{kind} texts equal"] += not missing
    counts[f"{kind} buttons equal"] += (
        not {*env.clicks()} - buttons and len(lacking - {"next >"}) == 0 and len(lacking) <= extra
    )
    for text in missing[:1]:
        counts[f"{kind} lacks {text[:40]!r}"] += 1


if __name__ == "__main__":
    main()
