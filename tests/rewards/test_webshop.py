"""A purchase is scored as WebShop scores it. `benchmarks/webshop.py` compares with its own code."""

import json
from dataclasses import replace

import pytest

from mem1.errors import ConfigError, MissingExtraError
from mem1.rewards import WebShopReward
from mem1.rewards.webshop import PurchaseScore, content_words, score_purchase
from mem1.tasks.webshop import Goal, Product, WebShopConfig, goal_of, load_goals, products_of
from mem1.types import Completion, Fault, Turn

SCARF = Product(
    asin="B1",
    title="Elsdon Wool Scarf",
    description="Keeps you warm.",
    bullet_points=("Hand wash only.",),
    prices=(19.5,),
    options={"color": ("red", "navy blue"), "size": ("s", "l")},
    attributes=("long lasting",),
    category="fashion",
    query="scarves",
    product_category="Clothing › Women › Scarves",
    instruction=None,
    instruction_attributes=(),
)
GOAL = Goal(
    asin="B1",
    instruction="",
    attributes=("long lasting", "hand wash"),
    options=("blue", "l"),
    price_upper=20.0,
)


def score(product=SCARF, *, options=("navy blue", "l"), goal=GOAL, wanted=SCARF) -> PurchaseScore:
    return score_purchase(product, options=options, goal=goal, wanted=wanted, nouns=content_words)


def test_what_was_wanted_earns_everything():
    assert score() == PurchaseScore(
        type=1.0, title=1.0, attributes=1.0, options=1.0, price=1.0, total=1.0
    )


def test_the_total_is_the_share_of_wishes_that_are_met():
    assert score(options=("red", "l")).total == 4 / 5
    assert score(options=()).total == 3 / 5
    assert score(goal=replace(GOAL, price_upper=19.0)).total == 4 / 5
    assert score(replace(SCARF, attributes=(), bullet_points=()), options=()).total == 1 / 5


def test_an_attribute_is_met_by_a_similar_one_or_by_the_text_alone():
    assert score(replace(SCARF, attributes=("lasting long", "x"))).attributes == 1.0
    assert score(replace(SCARF, attributes=(), title="Long Lasting Scarf")).attributes == 1.0
    assert score(replace(SCARF, attributes=("long",))).attributes == 1.0  # a part of it
    assert score(replace(SCARF, attributes=("lusting lung",))).attributes == 0.5


def test_options_are_compared_by_their_first_colour():
    assert score(options=("light blue", "l")).options == 1.0
    assert score(options=("turquoise", "l")).options == 0.5
    dark = replace(GOAL, options=("navy", "l"))
    assert score(options=("dark navy", "l"), goal=dark).options == 0.5  # dark is one, too


def test_without_wanted_options_none_count():
    assert score(goal=replace(GOAL, options=())).options is None
    assert score(goal=replace(GOAL, options=()), options=()).total == 1.0


def test_no_limit_is_kept_by_any_price():
    assert score(goal=replace(GOAL, price_upper=None)).price == 1.0


@pytest.mark.parametrize(
    ("wanted", "kind"),
    [
        ("one two scarf", 1.0),  # more than a fifth of the nouns
        ("b c d e f g h k l scarf", 0.5),  # a tenth
        ("b c d e f g h k l m scarf", 0.1),
        ("tie", 0.0),
        ("", 0.5),
    ],
)
def test_a_product_of_another_kind_earns_by_what_the_names_share(wanted, kind):
    far = replace(SCARF, query="x", product_category="Clothing › Men › Ties")
    assert score(far, wanted=replace(SCARF, title=wanted)).type == kind


def test_the_same_search_or_two_common_categories_make_the_same_kind():
    wanted = replace(SCARF, title="b c d e f g h k l scarf")
    assert score(replace(SCARF, product_category="Ties"), wanted=wanted).type == 1.0
    assert score(replace(SCARF, query="x"), wanted=wanted).type == 1.0
    other = replace(SCARF, query="x", product_category="Women › Women › Ties")
    assert score(other, wanted=wanted).type == 0.5


def test_content_words_are_those_that_say_something():
    assert content_words("The 2-Pack of men's T-Shirts, 100% Cotton & more") == [
        "pack",
        "men",
        "t",
        "shirts",
        "cotton",
        "more",
    ]


@pytest.fixture
def task(tmp_path, monkeypatch):
    monkeypatch.setenv("MEM1_CACHE", str(tmp_path))
    files = {name: f"data/webshop/{name}.json" for name in ("items", "items_ins")}
    return load_goals(WebShopConfig(products=files["items"], attributes=files["items_ins"]))[0]


def turn(*faults: Fault) -> Turn:
    said = Completion(
        token_ids=(1,), logprobs=(0.0,), temperature=1.0, text="", finish_reason="stop"
    )
    return Turn(
        context=(),
        completion=said,
        action=None,
        faults=faults,
        observation=None,
        engine_s=0.0,
        env_s=0.0,
    )


def test_the_reward_is_that_of_the_purchase_and_0_without_one(task):
    goal = goal_of(task)
    names = products_of(task).product(goal.asin).options
    options = dict(zip(sorted(names), goal.options, strict=True))
    bought = json.dumps({"asin": goal.asin, "options": options})
    output = WebShopReward()(task, answer=bought, turns=[])
    assert (output.total, output.parts["bought"], output.parts["r_price"]) == (1.0, 1.0, 1.0)
    assert WebShopReward()(task, answer=None, turns=[]).parts == {"bought": 0.0}


def test_a_fault_of_form_costs_the_episode_its_reward(task):
    bought = json.dumps({"asin": goal_of(task).asin, "options": {}})
    turns = [turn(), turn(Fault.STATE_MISSING)]
    strict = WebShopReward(format_fault=-1.0)
    assert strict(task, answer=bought, turns=turns).total == -1.0
    assert strict(task, answer=bought, turns=turns[:1]).total > 0
    assert WebShopReward()(task, answer=bought, turns=turns).total > 0


def test_nouns_by_spacy_need_spacy(task, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "spacy", None)
    bought = json.dumps({"asin": goal_of(task).asin, "options": {}})
    with pytest.raises(MissingExtraError, match="en_core_web_lg"):
        WebShopReward(nouns="spacy")(task, answer=bought, turns=[])
    with pytest.raises(ConfigError, match="nouns = 'nltk'"):
        WebShopReward(nouns="nltk")
