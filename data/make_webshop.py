"""Make the small shop of data/webshop: made-up products in the form of WebShop's files.

    python data/make_webshop.py

Writes items.json, items_ins.json and items_human_ins.json, the same each time.
"""

import json
import random
from pathlib import Path
from typing import Any

FOLDER = Path("data/webshop")
PER_KIND = 10

MAKERS = ("Alder", "Birkin", "Calder", "Dunmore", "Elsdon", "Fenwick", "Garrow", "Holt")
COLOURS = ("black", "blue", "green", "grey", "ivory", "navy", "red", "white")
SIZES = ("small", "medium", "large", "x-large")
KINDS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    (
        "wool scarf",
        "women's scarves",
        "Clothing, Shoes & Jewelry › Women › Accessories › Scarves",
        ("hand wash", "long lasting", "soft touch", "gift box"),
    ),
    (
        "running shoe",
        "men's running shoes",
        "Clothing, Shoes & Jewelry › Men › Shoes › Athletic",
        ("rubber sole", "arch support", "light weight", "machine wash"),
    ),
    (
        "rain jacket",
        "women's raincoats",
        "Clothing, Shoes & Jewelry › Women › Clothing › Coats",
        ("water resistant", "light weight", "machine wash", "full zip"),
    ),
    (
        "desk lamp",
        "desk lamps",
        "Tools & Home Improvement › Lighting › Lamps › Desk Lamps",
        ("energy efficient", "easy install", "touch control", "metal base"),
    ),
    (
        "coffee mug",
        "mugs",
        "Home & Kitchen › Kitchen & Dining › Dining & Entertaining › Mugs",
        ("dishwasher safe", "bpa free", "double wall", "leak proof"),
    ),
    (
        "storage basket",
        "baskets",
        "Home & Kitchen › Storage & Organization › Baskets & Bins",
        ("easy clean", "heavy duty", "eco friendly", "space saving"),
    ),
    (
        "shampoo",
        "shampoo",
        "Beauty & Personal Care › Hair Care › Shampoo & Conditioner",
        ("cruelty free", "tea tree", "paraben free", "sensitive skin"),
    ),
    (
        "face cream",
        "face moisturizers",
        "Beauty & Personal Care › Skin Care › Face › Creams",
        ("fragrance free", "cruelty free", "dry skin", "natural ingredients"),
    ),
    (
        "wireless headphone",
        "headphones",
        "Electronics › Headphones, Earbuds & Accessories › Over-Ear",
        ("noise cancelling", "fast charging", "long lasting", "light weight"),
    ),
    (
        "phone case",
        "phone cases",
        "Cell Phones & Accessories › Cases, Holsters & Sleeves › Basic Cases",
        ("wireless charging", "heavy duty", "easy install", "shock proof"),
    ),
    (
        "protein bar",
        "protein bars",
        "Grocery & Gourmet Food › Snack Foods › Bars › Protein",
        ("gluten free", "high protein", "low sugar", "plant based"),
    ),
    (
        "green tea",
        "green teas",
        "Grocery & Gourmet Food › Beverages › Tea › Green",
        ("caffeine free", "individually wrapped", "usda organic", "low sugar"),
    ),
)
CATEGORIES = ("fashion",) * 3 + ("garden",) * 3 + ("beauty",) * 2 + ("electronics",) * 2
CATEGORIES += ("grocery",) * 2


def main() -> None:
    rng = random.Random("a small shop")
    items: list[dict[str, Any]] = []
    known: dict[str, Any] = {}
    wishes: dict[str, Any] = {}
    for number in range(PER_KIND * len(KINDS)):
        item, has = product(number, rng=rng)
        items.append(item)
        known[item["asin"]] = has
        wishes[item["asin"]] = [wish(item, has["attributes"], rng=rng)]
    rng.shuffle(items)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, content in (("items", items), ("items_ins", known), ("items_human_ins", wishes)):
        (FOLDER / f"{name}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False))
    print(f"{len(items)} products and as many wishes in {FOLDER}")


def product(number: int, *, rng: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    """A product as in items_shuffle.json, and its entry in items_ins.json."""
    kind, query, path, all_attributes = KINDS[number // PER_KIND]
    attributes = sorted(rng.sample(all_attributes, 2))
    maker, low = rng.choice(MAKERS), rng.randrange(5, 80) + 0.99
    priced = f"${low:.2f}" if rng.random() < 0.8 else f"${low:.2f} to ${low + 10:.2f}"
    options = {"color": _values(rng.sample(COLOURS, rng.randrange(2, 5)))}
    if number // PER_KIND < 3:
        options["size"] = _values(SIZES[: rng.randrange(2, 5)])
    item = {
        "asin": f"B0MEM{number:05d}",
        "name": f"{maker} {kind.title()}, {attributes[0].title()}, Model {rng.randrange(100, 999)}",
        "category": CATEGORIES[number // PER_KIND],
        "query": query,
        "page": 1,
        "product_category": path,
        "full_description": f"A {kind} by {maker}. It is {attributes[0]} and {attributes[1]}.",
        "small_description": [
            f"{a.capitalize()}: that is what this {kind} is." for a in attributes
        ],
        "average_rating": "",
        "customization_options": options,
        "images": [""],
        "pricing": priced,
    }
    said = f"Find me {', '.join(attributes)} {query}"
    has = {"attributes": attributes, "instruction": said, "instruction_attributes": attributes}
    return item, has


def wish(item: dict[str, Any], attributes: list[str], *, rng: random.Random) -> dict[str, Any]:
    """What a person might ask for, as in items_human_ins.json."""
    kind = KINDS[int(item["asin"][-5:]) // PER_KIND][0]
    chosen = [rng.choice(v)["value"] for v in item["customization_options"].values()]
    described = " and ".join(attributes)
    return {
        "asin": item["asin"],
        "instruction": f"i need a {chosen[0]} {kind} that is {described}"
        + (f", in {chosen[1]}" if len(chosen) > 1 else "")
        + ".",
        "instruction_attributes": attributes,
        "instruction_options": chosen,
    }


def _values(values: Any) -> list[dict[str, Any]]:
    return [{"is_selected": False, "value": value, "image": None} for value in values]


if __name__ == "__main__":
    main()
