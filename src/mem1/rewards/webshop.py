"""What was bought against what was wanted: WebShop's reward.

    Product, options, Goal -> score_purchase -> PurchaseScore -> WebShopReward

Source: Yao et al. 2022 (arXiv 2207.01206), as its published code computes it (`get_reward`).
"""

import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import orjson
from rapidfuzz.fuzz import token_set_ratio
from rapidfuzz.utils import default_process

from mem1.errors import ConfigError, MissingExtraError
from mem1.rewards.base import RewardOutput
from mem1.tasks.webshop import Goal, Product, goal_of, products_of
from mem1.types import Task, Turn

_SIMILAR = 85
"""Above this similarity, in percent, two phrases are one."""

_COLOURS = re.findall(
    r"\w+",
    """
alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown
burgundy camel camo caramel champagne charcoal cheetah chestnut chocolate christmas coffee cognac
copper coral cranberry cream crystal dark denim eggplant elephant espresso fuchsia gold granite
grape graphite grass gray green grey heather indigo ivory ivy khaki lavender lemon leopard light
lilac lime magenta maroon mauve merlot midnight mint mocha multicolor mushroom mustard natural navy
nude olive orange peach pewter pink plum purple rainbow red rose royal rust sand sapphire seashell
silver skull slate steel stone stonewash sunflower tan taupe teal tiger turquoise violet walnut
wheat white wine yellow
""",
)

_FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a all an and are as at be but by for from if in is it its no not of on or our per so that "
        "the their these this to up with you your",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PurchaseScore:
    """How a purchase compares with a goal: shares in 0 to 1."""

    type: float
    """1 for a product of the same kind, 0.5 or 0.1 for another, 0 if the names share nothing."""
    title: float
    """Share of the nouns in the wanted product's name that stand in the bought one's."""
    attributes: float
    options: float | None
    """None if none is wanted."""
    price: float
    """1 if it keeps to the limit, else 0."""
    total: float
    """Type times the share of attributes, options and price limit that are met."""


def score_purchase(
    product: Product,
    *,
    options: Sequence[str],
    goal: Goal,
    wanted: Product,
    nouns: Callable[[str], list[str]],
) -> PurchaseScore:
    """Args: `options`, values that were chosen; `wanted`, the goal's product; `nouns`, those of a
    name, lower case."""
    title = _title_share(product.title, wanted.title, nouns=nouns)
    kind = _type_share(product, wanted, title=title)
    attributes = sum(_has(product, attribute) for attribute in goal.attributes)
    chosen = [_colour(option) for option in options]
    matched = sum(any(_similar(c, _colour(want)) for c in chosen) for want in goal.options)
    price = float(goal.price_upper is None or product.price <= goal.price_upper)
    wishes = len(goal.attributes) + len(goal.options) + 1
    return PurchaseScore(
        type=kind,
        title=title,
        attributes=attributes / len(goal.attributes),
        options=matched / len(goal.options) if goal.options else None,
        price=price,
        total=kind * (attributes + matched + price) / wishes,
    )


def _title_share(bought: str, wanted: str, *, nouns: Callable[[str], list[str]]) -> float:
    names = nouns(wanted)
    return len({*nouns(bought)} & {*names}) / len(names) if names else 0.2


def _type_share(product: Product, wanted: Product, *, title: float) -> float:
    same = len(_categories(product) & _categories(wanted)) >= 2
    if title == 0:
        return 0.0
    if title < 0.1:
        return 0.1
    return 1.0 if product.query == wanted.query or same or title > 0.2 else 0.5


def _categories(product: Product) -> set[str]:
    return {part.strip() for part in product.product_category.split("›")}


def _has(product: Product, attribute: str) -> bool:
    texts = (product.title, " ".join(product.bullet_points), product.description)
    return any(_similar(known, attribute) for known in product.attributes) or any(
        attribute in text.lower() for text in texts
    )


def _colour(option: str) -> str:
    """The first of the colours, by the alphabet, that it names, if any: `navy blue` is `blue`."""
    return next((colour for colour in _COLOURS if colour in option), option)


def _similar(left: str, right: str) -> bool:
    """As thefuzz tells, without accents and punctuation."""
    return round(token_set_ratio(left, right, processor=_plain)) > _SIMILAR


def _plain(text: str) -> str:
    return default_process("".join(char for char in text if not "\x80" <= char <= "\xff"))


def content_words(name: str) -> list[str]:
    """The words of a name that say something, in lower case: nouns, as far as one can tell without
    a model."""
    words = re.findall(r"[^\W\d_]+", re.sub(r"['’]s\b", "", name.lower()))
    return [word for word in words if word not in _FUNCTION_WORDS]


@cache
def _spacy_nouns() -> Callable[[str], list[str]]:
    try:
        model: Any = importlib.import_module("spacy").load("en_core_web_lg")
    except (ImportError, OSError) as error:
        raise MissingExtraError("spacy with its model en_core_web_lg", extra="webshop") from error
    return lambda name: [t.text.lower() for t in model(name) if t.pos_ in ("NOUN", "PROPN")]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebShopReward:
    """WebShop's reward of the purchase, 0 to 1; 0 without one. Parts: r_type, r_title,
    r_attributes, r_options (if any is wanted), r_price, bought."""

    format_fault: float | None = None
    """The reward of an episode with a fault of form in any reply, whatever it bought: -1 in MEM1
    (arXiv 2506.15841). None: faults cost nothing."""
    nouns: Literal["words", "spacy"] = "words"
    """How the nouns of names are told: all words but function words and numbers; or, as WebShop,
    by spaCy's en_core_web_lg."""

    def __post_init__(self) -> None:
        if self.nouns not in ("words", "spacy"):
            raise ConfigError(f"nouns = {self.nouns!r}: choose 'words' or 'spacy'")

    def __call__(self, task: Task, *, answer: str | None, turns: Sequence[Turn]) -> RewardOutput:
        parts = self._parts(task, answer)
        faulty = any(turn.faults for turn in turns)
        if self.format_fault is not None and faulty:
            return RewardOutput(total=self.format_fault, parts=parts)
        return RewardOutput(total=parts.get("r_total", 0.0), parts=parts)

    def _parts(self, task: Task, answer: str | None) -> dict[str, float]:
        if answer is None:
            return {"bought": 0.0}
        goal, products = goal_of(task), products_of(task)
        purchase = orjson.loads(answer)
        score = score_purchase(
            products.product(purchase["asin"]),
            options=list(purchase["options"].values()),
            goal=goal,
            wanted=products.product(goal.asin),
            nouns=content_words if self.nouns == "words" else _spacy_nouns(),
        )
        figures = {
            "r_total": score.total,
            "r_type": score.type,
            "r_title": score.title,
            "r_attributes": score.attributes,
            "r_options": score.options,
            "r_price": score.price,
        }
        return {"bought": 1.0} | {k: v for k, v in figures.items() if v is not None}
