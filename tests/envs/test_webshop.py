"""The shop: pages, what can be clicked on them, and a purchase at the end."""

import asyncio
import json
import random
from pathlib import Path

import pytest
from worlds import play, scripted

from mem1.context import Budget
from mem1.envs.webshop import Shop, WebShopEnv
from mem1.errors import DataError
from mem1.rewards import WebShopReward
from mem1.tasks.webshop import WebShopConfig, goal_of, load_goals, open_products
from mem1.types import Action, Fault, Objective, StopReason, Task

DATA = Path("data/webshop")
CONFIG = WebShopConfig(
    products=str(DATA / "items.json"),
    attributes=str(DATA / "items_ins.json"),
    instructions=str(DATA / "items_human_ins.json"),
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEM1_CACHE", str(tmp_path_factory.mktemp("cache")))
        open_products.cache_clear()
        yield Shop(open_products(CONFIG.products, CONFIG.attributes))
        open_products.cache_clear()


@pytest.fixture
def task(shop) -> Task:
    return load_goals(CONFIG, limit=1)[0]


def done(env, *actions):
    """The observation that the last action brings."""

    async def walk():
        for action in actions:
            asked = Action(name="answer", argument=action) if action else None
            seen = await env.step(asked, faults=() if action else (Fault.NO_ACTION,))
        return seen

    return asyncio.run(walk())


def found(env) -> list[str]:
    """The products of the page."""
    return [click for click in env.clicks() if click.startswith("b0mem")]


def test_the_prompt_says_what_is_wanted(shop, task):
    prompt = asyncio.run(WebShopEnv(task, shop=shop).start(max_turns=9, state_tokens=50))
    assert f"\nInstruction: {goal_of(task).instruction}\n" in prompt
    assert "{" not in prompt


def test_a_search_shows_ten_products_with_title_and_price(shop, task):
    env = WebShopEnv(task, shop=shop)
    lines = done(env, "search[wool scarf green tea]").text.split("\n")
    first = shop.products.product(found(env)[0].upper())
    assert lines[0].startswith("Page 1 (Total results: ")
    assert lines[1] == f"{first.asin} {first.title} {first.price_tag}"
    assert "Wool Scarf" in first.title or "Green Tea" in first.title
    assert len(found(env)) == 10
    assert lines[-1].startswith("Current available actions: [click[back to search], click[next >]")


def test_pages_of_results_hold_each_product_once_and_end(shop, task):
    env = WebShopEnv(task, shop=shop)
    done(env, "search[wool scarf green tea]")
    seen = found(env)
    while "next >" in env.clicks():
        done(env, "click[Next >]")
        seen += found(env)
    assert (
        len(set(seen)) == len(seen) == len(asyncio.run(shop.search("wool scarf green tea"))) <= 50
    )
    assert "There's no 'next >'" in done(env, "click[next >]").text
    first = WebShopEnv(task, shop=shop)
    done(first, "search[wool scarf green tea]")
    assert "< prev" not in first.clicks()


def test_an_item_page_leads_to_sub_pages_and_back(shop, task):
    env = WebShopEnv(task, shop=shop)
    done(env, "search[wool scarf]")
    asin = found(env)[3]
    product = shop.products.product(asin.upper())
    item = done(env, f"click[{asin}]").text
    assert item.startswith(f"{product.title}\nPrice: {product.price_tag}\nRating: N.A.\ncolor: ")
    assert done(env, "click[description]").text.startswith(product.description)
    assert env.clicks() == ["back to search", "< prev"]
    assert done(env, "click[< prev]").text == item
    assert product.bullet_points[1] in done(env, "click[Features]").text
    assert done(env, "click[< prev]", "click[reviews]").text.startswith("No reviews found")
    done(env, "click[< prev]", "click[< prev]")
    assert found(env)[3] == asin


def test_options_are_chosen_kept_on_sub_pages_and_dropped_with_the_item(shop, task):
    env = WebShopEnv(task, shop=shop)
    done(env, "search[wool scarf]")
    asin = found(env)[0]
    done(env, f"click[{asin}]")
    one, two = shop.products.product(asin.upper()).options["color"][:2]
    done(env, f"click[{one}]", f"click[{two.upper()}]", "click[features]")
    assert f"color (chosen: {two}): " in done(env, "click[< prev]").text
    done(env, "click[< prev]", f"click[{asin}]")
    assert json.loads(done(env, "click[buy now]").outcome)["options"] == {}


def test_a_purchase_ends_the_episode_with_product_and_options(shop, task):
    goal = goal_of(task)
    title = shop.products.product(goal.asin).title
    env = WebShopEnv(task, shop=shop)
    picks = [f"click[{option}]" for option in goal.options]
    end = done(env, f"search[{title}]", f"click[{goal.asin}]", *picks, "click[Buy Now]")
    assert end.done
    bought = json.loads(end.outcome)
    assert (bought["asin"], sorted(bought["options"].values())) == (goal.asin, sorted(goal.options))


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (None, "Your last reply had no valid action."),
        ("buy it", "'buy it' is neither search[keywords] nor click[button]."),
        ("click[pink polka dots]", "There's no 'pink polka dots' to click here."),
        ("click[buy now]", "There's no 'buy now' to click here."),
        ("click[]", "There's no '' to click here."),
        ("search[  ]", "A search needs keywords: search[keywords]."),
    ],
)
def test_what_cant_be_done_is_said_and_changes_nothing(shop, task, action, said):
    env = WebShopEnv(task, shop=shop)
    before = done(env, "search[green tea]").text
    assert done(env, action).text == f"{said}\n{before}"


def test_a_search_that_finds_nothing_says_so(shop, task):
    seen = done(WebShopEnv(task, shop=shop), "search[xylophone]").text
    assert seen == ("Page 1 (Total results: 0)\nCurrent available actions: [click[back to search]]")


@pytest.mark.parametrize("tokens", [1, 60, 120, 300])
def test_a_long_page_is_cut_before_the_actions(shop, task, tokens):
    env = WebShopEnv(task, shop=shop, observation_tokens=tokens)
    text = done(env, "search[wool scarf]").text
    assert len(text) <= max(2 * (tokens - 40), 0) + len("…\nCurrent available actions: [, …]")
    assert text.endswith("]")


def session(shop, task, *, number: int):
    """What a session sees, step by step; its steps follow from its number and what it sees."""
    env, rng = WebShopEnv(task, shop=shop), random.Random(number)
    for _ in range(5):
        clicks = [click for click in env.clicks() if click != "buy now"]
        search = not clicks or rng.random() < 0.2
        words = rng.choice(["wool scarf", "green tea", "lamp", "cotton socks"])
        yield done(env, f"search[{words}]" if search else f"click[{rng.choice(clicks)}]").text


def test_five_hundred_sessions_at_once_see_what_each_sees_alone(shop, task):
    alone = [tuple(session(shop, task, number=number)) for number in range(500)]
    rounds = zip(*(session(shop, task, number=number) for number in range(500)), strict=True)
    assert list(zip(*rounds, strict=True)) == alone
    assert len(set(alone)) > 400


def test_a_task_of_another_kind_is_refused(shop):
    with pytest.raises(DataError, match="none of a shop"):
        WebShopEnv(Task(id="t", objectives=(Objective(question="q", answers=()),)), shop=shop)


def test_an_episode_keeps_the_summary_forgets_the_thought_and_earns_the_reward(shop, task):
    goal = goal_of(task)
    title = shop.products.product(goal.asin).title
    acts = [f"search[{title}]", f"click[{goal.asin.lower()}]"]
    acts += [f"click[{option}]" for option in goal.options] + ["click[buy now]"]
    replies = [
        f"<think>thought {n}</think><summary>note {n}</summary><answer>{act}</answer>"
        for n, act in enumerate(acts)
    ]
    trajectory = play(
        scripted(*replies),
        task=task,
        world=WebShopEnv(task, shop=shop, observation_tokens=900),
        reward=WebShopReward(format_fault=-1.0),
        budget=Budget(prompt=3000, internal_state=80, action=120, observation=900),
        max_turns=8,
    )
    assert (trajectory.stop_reason, trajectory.reward) == (StopReason.DONE, 1.0)
    assert json.loads(trajectory.answer)["asin"] == goal.asin
    seen = "".join(segment.text for segment in trajectory.turns[-1].context)
    assert f"<summary>note {len(acts) - 2}</summary>" in seen
    assert f"thought {len(acts) - 2}" not in seen
