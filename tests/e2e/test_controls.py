"""Controls tell apart what memory does: an agent that copies what it sees, under each policy."""

import asyncio
import math
import random
from collections.abc import Callable

from mem1.chat import ByteRenderer
from mem1.config import ContextConfig, LedgerTasks, RunConfig, RunSettings, ServerConfig
from mem1.context import Budget
from mem1.engines import Request, ScriptedEngine
from mem1.evals import build_report
from mem1.rollout import collect
from mem1.tasks.ledger import VALUES, read_entries, write_notes
from mem1.types import Sampling
from mem1.wiring import plan_jobs
from mem1.worlds import compose_tasks, open_world

SIZES = (2, 4)
POLICIES = ("internal_state", "full", "last_observation", "closed_book", "oracle")


def copies(request: Request) -> str:
    """Writes down every entry it sees; asks for the first name it has no entry of."""
    text = ByteRenderer().decode(request.prompt_ids)
    names = text.partition("values of ")[2].partition("\n")[0].split()
    held = {name: value for name, value in read_entries(text) if value in VALUES}
    owed = [name for name in names if name not in held]
    if owed and "1 turn left" not in text:
        return f"{write_notes(held, query=owed[0])}<search> {owed[0]}</search>"
    answers = "; ".join(held.get(name, "unknown") for name in names)
    return f"{write_notes(held)}<answer> {answers}</answer>"


def forgets(request: Request) -> str:
    """The same, with half a memory: each state loses an entry of two."""
    said = copies(request)
    notes, _, action = said.partition("</think>")
    rng = random.Random(said)
    kept = {name: value for name, value in read_entries(notes) if rng.random() < 0.5}
    return write_notes(kept) + action  # it answers from what it saw, before it forgets


def figures(agent: Callable[[Request], str], metric: str) -> dict[str, list[float]]:
    """By policy, the mean of a metric at each N."""
    config = RunConfig(
        engine=ServerConfig(base_url="http://unused", model="unused", mode="chat"),
        context=ContextConfig(policies=POLICIES),
        budget=Budget(prompt=200, internal_state=100, action=60, observation=120),
        sampling=Sampling(temperature=1.0, seed=0),
        tasks=LedgerTasks(num_objectives=SIZES, count=6, seed=3),
        run=RunSettings(max_turns={2: 3, 4: 5}),
    )
    jobs = plan_jobs(
        config,
        tasks=compose_tasks(config.tasks),
        engine=ScriptedEngine(agent, codec=ByteRenderer()),
        renderer=ByteRenderer(),
        make_env=open_world(config),
    )
    found: dict[str, list[float]] = {policy: [] for policy in POLICIES}
    for cell in build_report(asyncio.run(collect(jobs)), command="", config={}).cells:
        estimate = cell.estimates.get(metric)
        found[cell.context_policy].append(estimate.mean if estimate else math.nan)
    return found


def test_a_perfect_copier_needs_its_state_or_its_history():
    assert figures(copies, "em") == {
        "internal_state": [2.0, 4.0],
        "full": [2.0, 4.0],
        "last_observation": [1.0, 1.0],  # what it saw last
        "closed_book": [0.0, 0.0],
        "oracle": [2.0, 4.0],
    }


def test_who_forgets_under_its_own_state_does_not_under_the_oracles():
    scores, survival = figures(forgets, "em"), figures(forgets, "survival")
    assert scores["oracle"] == scores["full"] == [2.0, 4.0]
    assert scores["internal_state"][1] < 3.0
    assert survival["oracle"] == [1.0, 1.0]
    assert survival["internal_state"][1] < 0.8


def test_what_was_withheld_was_not_seen_and_only_a_grown_context_is_not_compressed():
    assert all(math.isnan(share) for share in figures(copies, "held")["closed_book"])
    rewritten = {policy: [1.0, 3.0] for policy in POLICIES}
    assert figures(copies, "compressions") == rewritten | {"full": [0.0, 0.0]}
