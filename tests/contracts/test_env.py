"""What every Env keeps to: a prompt, an observation for every action and for none, an end."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from mem1.envs import Env, Observation, QAEnv
from mem1.envs.ledger import LedgerEnv
from mem1.envs.webshop import Shop, WebShopEnv
from mem1.tasks.ledger import LedgerConfig, ledger_task
from mem1.tasks.webshop import WebShopConfig, load_goals, products_of
from mem1.types import Action, Fault, Objective, Task

TASK = Task(
    id="t",
    objectives=tuple(Objective(question=q, answers=("x",)) for q in ("Who</think>?", "When?")),
)


CAPS = {"max_turns": 6, "state_tokens": 40}


@dataclass(frozen=True)
class Echo:
    name: str = "search"

    async def call(self, argument: str) -> str:
        return argument


SHOP = WebShopConfig(products="data/webshop/items.json", attributes="data/webshop/items_ins.json")
PAGES = ledger_task(LedgerConfig(), num_objectives=2, number=0)


def shop_env() -> WebShopEnv:
    (goal,) = load_goals(SHOP, limit=1)
    return WebShopEnv(goal, shop=Shop(products_of(goal)))


ENVS = {
    "qa": lambda: QAEnv(TASK, tools=[Echo()]),
    "ledger": lambda: LedgerEnv(PAGES),
    "webshop": shop_env,
}


@pytest.fixture(params=ENVS.values(), ids=ENVS)
def make_env(request) -> Callable[[], Env]:
    return request.param


def test_it_starts_with_a_prompt_that_is_the_same_every_time(make_env):
    one, two = (asyncio.run(make_env().start(**CAPS)) for _ in range(2))
    assert one == two != ""
    assert "Who</think>" not in one


def test_its_actions_are_tag_names_and_do_not_change(make_env):
    env = make_env()
    before = env.actions
    asyncio.run(env.start(**CAPS))
    assert env.actions == before
    assert len(set(before)) == len(before) > 0


def test_every_action_and_none_bring_an_observation(make_env):
    async def replies(env):
        await env.start(**CAPS)
        none = await env.step(None, faults=(Fault.NO_ACTION,))
        acted = [await env.step(Action(name=name, argument="x"), faults=()) for name in env.actions]
        await env.close()
        return none, acted

    none, acted = asyncio.run(replies(make_env()))
    assert none.text
    assert not none.done
    assert all(isinstance(observation, Observation) for observation in acted)


def test_closing_twice_and_before_the_start_is_harmless(make_env):
    async def close():
        env = make_env()
        await env.close()
        await env.close()

    asyncio.run(close())
