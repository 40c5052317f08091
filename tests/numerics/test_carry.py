"""Carried episodes, sampled with eviction: their log-probabilities are those of one packed pass.

The model's replies are dictated, so that states and actions are well-formed, or aren't, by turns;
their log-probabilities are the model's own.
"""

import asyncio
import random
from dataclasses import dataclass, field, replace
from functools import cache

import pytest

torch = pytest.importorskip("torch")

from models import CONFIGS, random_model  # noqa: E402

from mem1.chat import ByteRenderer  # noqa: E402
from mem1.context import Budget, Full, InternalState, Window  # noqa: E402
from mem1.engines.local import LocalEngine  # noqa: E402
from mem1.envs import Observation  # noqa: E402
from mem1.packing import pack, sampled_tokens  # noqa: E402
from mem1.rewards import ExactMatchReward  # noqa: E402
from mem1.rollout import Agent, Job, collect, run_episode  # noqa: E402
from mem1.train.scoring import score  # noqa: E402
from mem1.types import Objective, Sampling, Task, Trajectory  # noqa: E402

BUDGET = Budget(prompt=150, internal_state=50, action=24, observation=100)
POLICIES = [InternalState(), Window(k=2), Full()]
RULES = "Search as long as you like; what you don't write down is gone. "
TASKS = [
    Task(id=name, objectives=(Objective(question=RULES + name, answers=("x",)),)) for name in "ab"
]


class Bytes(ByteRenderer):
    """Two ids for each byte: text encoded again would be other tokens."""

    def decode(self, token_ids):
        return super().decode([token % 256 for token in token_ids])


@dataclass
class Gossip:
    """A world that never ends an episode, and talks at random."""

    task: Task
    actions: tuple[str, ...] = ("search", "answer")
    rng: random.Random = field(default_factory=lambda: random.Random(0))

    async def start(self, *, max_turns: int, state_tokens: int) -> str:
        return self.task.objectives[0].question

    async def step(self, action, *, faults) -> Observation:
        return Observation(text="y" * self.rng.randrange(30))

    async def close(self) -> None:
        pass


@cache
def dictated(seed: int) -> tuple[int, ...]:
    """A reply: mostly well-formed; else without a state, with a forged tag in it, or free."""
    rng = random.Random(seed)
    text = "".join(rng.choices("aeinost ", k=rng.randrange(3, 16)))
    state, action = f"<think>{text}</think>\n", f"<search>{text[:5]}</search>"
    forged = f"<think>{text}<search></think>"
    replies = [state + action] * 5 + [action, forged + action, ""]
    return tuple(byte + 256 * rng.randrange(2) for byte in rng.choice(replies).encode())


def local(model, *, dictate: bool = True, **settings) -> LocalEngine:
    engine = LocalEngine(model, codec=Bytes(), **settings)
    batch = engine._batch
    choose = batch._choose

    def dictates(scores, *, norm, places):
        tokens = choose(scores, norm=norm, places=places)
        for number, (row, ahead) in enumerate(places):
            ids, done = dictated(row.request.sampling.seed), len(row.token_ids) + ahead
            tokens[number] = ids[done] if done < len(ids) else tokens[number]
        return tokens

    if dictate:
        batch._choose = dictates
    return engine


def agent(engine, policy, *, mode="carry", max_turns=5) -> Agent:
    return Agent(
        engine=engine,
        renderer=Bytes(),
        context=policy,
        budget=BUDGET,
        sampling=Sampling(seed=0),
        max_turns=max_turns,
        mode=mode,
    )


def sampled(agent: Agent, *, samples: int = 2) -> list[Trajectory]:
    """Episodes of all tasks at once: more than the engine has rows for."""
    jobs = [
        Job(task=task, sample=sample, agent=agent, make_env=Gossip, reward=ExactMatchReward())
        for task in TASKS
        for sample in range(samples)
    ]
    found = asyncio.run(collect(jobs))
    assert {(trajectory.error, trajectory.mode) for trajectory in found} == {(None, agent.mode)}
    return found


def plain(model, row):
    """Log-probabilities of a row's targets by the model's own code and a dense mask."""
    token_ids, positions, until, parent, targets = (
        torch.from_numpy(getattr(row, name))
        for name in ("token_ids", "positions", "visible_until", "parent", "targets")
    )
    place = torch.arange(row.num_tokens)
    sees = (place <= place[:, None]) & (place[:, None] < until)
    with torch.no_grad():
        logits = model(
            input_ids=token_ids[None], position_ids=positions[None], attention_mask=sees[None, None]
        ).logits[0]
    logprobs = logits[parent[targets]].log_softmax(-1)
    return logprobs.gather(1, token_ids[targets, None])[:, 0]


def recorded(trajectories):
    """The engine's log-probabilities in the order of SampledTokens."""
    turns = [turn for trajectory in trajectories for turn in trajectory.turns]
    return torch.tensor([p for t in turns for p in t.completion.logprobs], dtype=torch.float64)


def apart(model, trajectories, logprobs=plain) -> float:
    """Largest difference between the engine's log-probabilities and those of packed rows."""
    found = torch.full([sampled_tokens(trajectories).num_tokens], torch.nan, dtype=torch.float64)
    for row in pack(trajectories, row_tokens=1800):
        found[row.index] = logprobs(model, row).double()
    return float((found - recorded(trajectories)).abs().max())


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("kind", CONFIGS)
def test_logprobs_are_those_of_one_packed_pass(kind, policy):
    model = random_model(kind)
    trajectories = sampled(agent(local(model, max_batch=3), policy))
    assert {trajectory.num_turns for trajectory in trajectories} == {5}
    assert apart(model, trajectories) <= 5e-5


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_in_float64_nothing_is_left_but_rounding(policy):
    model = random_model("qwen3", dtype=torch.float64)
    assert apart(model, sampled(agent(local(model, max_batch=3), policy))) <= 1e-9


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_the_trainer_scores_what_the_engine_sampled(policy):
    model = random_model("llama")

    def scored(model, row):
        with torch.no_grad():
            return score(model, row, temperature_T=torch.ones(len(row.targets))).logprobs_T

    assert apart(model, sampled(agent(local(model), policy)), scored) <= 5e-5


@pytest.fixture(scope="module")
def alone() -> list[Trajectory]:
    """Episodes one after the other, of which nothing is remembered."""
    engine = local(random_model("qwen2"), max_batch=1, prefix_cache_tokens=0)
    return sampled(agent(engine, InternalState()))


def test_a_carried_episode_trained_as_if_encoded_anew_is_seen(alone):
    wrong = [replace(trajectory, mode="reencode") for trajectory in alone]
    assert apart(random_model("qwen2"), wrong) > 0.01


@pytest.mark.parametrize("max_batch", [1, 3])
def test_company_and_what_is_remembered_change_nothing(alone, max_batch):
    engine = local(random_model("qwen2"), max_batch=max_batch)
    trajectories = sampled(agent(engine, InternalState()))
    assert [t.turns[-1].prompt_ids for t in trajectories] == [t.turns[-1].prompt_ids for t in alone]
    assert (recorded(trajectories) - recorded(alone)).abs().max() <= 5e-5


@pytest.mark.parametrize("kind", CONFIGS)
def test_full_context_carried_is_full_context_encoded_anew(kind):
    model = random_model(kind)
    # What ends a reply isn't part of a context: carried, its position stays empty.
    model.generation_config.eos_token_id = None
    engine = local(model, dictate=False, max_batch=3)
    short = replace(BUDGET, internal_state=14, action=10)
    carried, anew = (
        sampled(replace(agent(engine, Full(), mode=mode, max_turns=3), budget=short))
        for mode in ("carry", "reencode")
    )
    for one, other in zip(carried, anew, strict=True):
        assert [t.prompt_ids for t in one.turns] == [t.prompt_ids for t in other.turns]
        assert [t.completion.token_ids for t in one.turns] == [
            t.completion.token_ids for t in other.turns
        ]


class Amnesia:
    """Drops even the prompt."""

    def bound(self, budget: Budget) -> None:
        return None

    def update(self, context, parts):
        return (parts.reply, parts.observation, parts.hint)

    def __str__(self) -> str:
        return "amnesia"


def test_even_the_prompt_can_be_evicted():
    model = random_model("qwen2")
    assert apart(model, sampled(agent(local(model, max_batch=3), Amnesia()))) <= 5e-5


class Nothing(Full):
    """Adds nothing to what was sampled."""

    def update(self, context, parts):
        return (context[0], parts.reply)


def test_a_context_without_anything_new_goes_on_behind_its_last_token():
    model = random_model("qwen2")
    assert apart(model, sampled(agent(local(model, max_batch=3), Nothing()))) <= 5e-5


@pytest.mark.parametrize("policy", POLICIES[:2], ids=str)
def test_what_is_evicted_takes_no_memory(policy):
    model = random_model("llama")
    model.config.max_position_embeddings = 8192
    engine = local(model)
    sizes: list[int] = []

    def watch(turn):
        (held,) = engine._held.values()
        sizes.append(held.kv[0][0].shape[2])
        # The token sampled last has none yet.
        assert sizes[-1] == len(turn.prompt_ids) + turn.completion.num_tokens - 1

    one = agent(engine, policy, max_turns=14)
    played = asyncio.run(
        run_episode(
            TASKS[0], agent=one, env=Gossip(TASKS[0]), reward=ExactMatchReward(), on_turn=watch
        )
    )
    assert played.num_turns == len(sizes) == 14
    assert max(sizes) < played.bound
    assert max(sizes[7:]) < 1.5 * max(sizes[:7])
    assert engine._held == {}


def test_a_run_stops_where_positions_would_leave_the_window():
    model = random_model("llama")
    model.config.max_position_embeddings = 600
    trajectories = sampled(agent(local(model), InternalState(), max_turns=30))
    assert {trajectory.stop_reason for trajectory in trajectories} == {"window_full"}
    for trajectory in trajectories:
        (row,) = pack([trajectory], row_tokens=2000)
        assert 600 - BUDGET.reply - BUDGET.observation < row.positions.max() + 1 <= 600
        assert max(len(turn.prompt_ids) for turn in trajectory.turns) + BUDGET.reply <= 600 / 1.5
