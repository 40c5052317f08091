"""What a plan counts is what a learner holds, to the byte, and what the engine does at most."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from mem1.config import RunConfig  # noqa: E402
from mem1.engines.slots import Slots, attending_over  # noqa: E402
from mem1.plan import Machine, plan_run  # noqa: E402
from mem1.settings import build  # noqa: E402
from mem1.train.config import TrainConfig  # noqa: E402
from mem1.train.policy import Policy, load_policy  # noqa: E402
from mem1.train.tiny import make_tiny  # noqa: E402
from mem1.train.update import Learner  # noqa: E402

CRITIC = {"algorithm": "ppo", "critic": {"kind": "separate"}, "loss": {"kl": 0.1}}
SMALL_CRITIC = CRITIC | {"critic": {"kind": "separate", "num_layers": 1}}
GROUPS = {"algorithm": "grpo", "group_size": 2}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    make_tiny(folder, seed=0, hidden=16, layers=2)
    return folder


def planned(folder: Path, *, dtype: str, train: dict) -> dict[str, int]:
    engine = {"kind": "local", "model": str(folder), "dtype": dtype, "max_batch": 4}
    engine |= {"device": "cpu", "prefix_cache_tokens": 0}
    budget = {"prompt": 40, "internal_state": 20, "action": 10, "observation": 10}
    settings = {"engine": engine, "budget": budget, "train": {"steps": 1} | train}
    plan = plan_run(build(RunConfig, settings), Machine(memory=2**40, kind="cpu"))
    return {item.name: item.bytes for item in plan.items}


def held(learner: Learner) -> dict[str, int]:
    """Bytes after a step, of tensors that stay; the optimizer's counts of steps left out."""
    policy = learner.policy
    models = {"weights": [policy.model, policy.value_head], "reference": [policy.reference]}
    found = {name: sum(map(size, parts)) for name, parts in models.items()}
    for optimizer, model in (
        (learner.optimizer, policy.model),
        (learner.critic_optimizer, policy.critic),
    ):
        if optimizer is None:
            continue
        tensors = optimizer.state().tensors.items()
        masters = sum(t.nbytes for name, t in tensors if name.startswith("master."))
        moments = sum(t.nbytes for name, t in tensors if "exp_avg" in name)
        if model is policy.model:
            found |= {"float32 copies": masters, "optimizer": moments}
        else:
            found["critic and its optimizer"] = size(model) + masters + moments
    return {name: count for name, count in found.items() if count}


def size(module: torch.nn.Module | None) -> int:
    return sum(p.nbytes for p in module.parameters()) if module is not None else 0


def stepped(policy: Policy, *, config: TrainConfig) -> Learner:
    """A learner that took a step, with gradients of 1."""
    learner = Learner.create(policy, config=config)
    for model in filter(None, (policy.model, policy.critic, policy.value_head)):
        sum(p.sum() for p in model.parameters() if p.requires_grad).backward()
    for optimizer in learner.optimizers.values():
        optimizer.step()
    return learner


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("train", [GROUPS, GROUPS | {"lora": {"rank": 4}}, CRITIC, SMALL_CRITIC])
def test_what_a_learner_holds_is_counted_to_the_byte(tiny, dtype, train):
    if "lora" in train:
        pytest.importorskip("peft")
    config = build(TrainConfig, {"steps": 1} | train)
    policy = load_policy(tiny, config=config, device="cpu", dtype=dtype)
    found = held(stepped(policy, config=config))
    plan = planned(tiny, dtype=dtype, train=train)
    if "critic and its optimizer" in found:
        # The plan counts the value head with the weights, its moments nowhere: a few numbers.
        found["critic and its optimizer"] -= 2 * size(policy.value_head)
    assert {name: plan[name] for name in found} == found


def test_the_engines_rows_take_at_most_what_is_counted(tiny):
    config = build(TrainConfig, {"steps": 1} | GROUPS)
    model = load_policy(tiny, config=config, device="cpu", dtype="float32").sampled_model
    slots, prompt = Slots(2, max_rows=4), [5] * 100
    for _ in range(4):
        slots.join(None, plain_ids=prompt, position=0)
    places = slots.begin([100] * 4, num_decoding=0, device=model.device)
    with attending_over(slots, model) as told, torch.no_grad():
        model(input_ids=torch.tensor([prompt * 4]), position_ids=places, **told)
    buffers = sum(keys.nbytes + values.nbytes for keys, values in slots._buffers)
    # The bound is 40 + 2 * 30 + 10 tokens.
    assert buffers == planned(tiny, dtype="float32", train=GROUPS)["keys and values"] * 356 // 366
