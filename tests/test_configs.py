"""Every shipped config loads, and says what the paper says where the paper gives a number."""

from pathlib import Path

import pytest

from mem1.config import RunConfig, load_config
from mem1.training import check_trainable

FOLDER = Path(__file__).parents[1] / "configs"
CONFIGS = sorted(FOLDER.rglob("*.toml"))


def loaded(name: str) -> RunConfig:
    return load_config(FOLDER / f"{name}.toml")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_loads_and_one_that_trains_can(path):
    config = load_config(path)
    if config.train:
        check_trainable(config)


def test_there_are_configs_of_every_kind():
    kinds = {config.train.algorithm for path in CONFIGS if (config := load_config(path)).train}
    assert kinds >= {"sft", "ppo", "grpo"}
    assert len(CONFIGS) >= 10


PAPER = {
    # Reference section 1: steps, batch, mini-batch, epochs, warm-up of the policy, turns.
    "paper_qa": (500, 128, 64, 1, 0.05, 6),
    "paper_webshop": (1005, 64, 16, 1, 0.285, 10),
}


@pytest.mark.parametrize("name", PAPER)
def test_sizes_are_the_papers(name):
    config, train = loaded(name), loaded(name).train
    assert train is not None
    sizes = (train.steps, train.batch_size, train.mini_batch_size, train.epochs)
    assert (*sizes, train.optimizer.warmup, config.run.max_turns) == PAPER[name]


@pytest.mark.parametrize("name", PAPER)
def test_optimizers_are_the_papers(name):
    train = loaded(name).train
    assert train is not None
    assert train.critic is not None
    policy, critic = train.optimizer, train.critic.optimizer
    assert (policy.lr, critic.lr, critic.warmup) == (1e-6, 1e-5, 0.015)
    for optimizer in (policy, critic):
        found = (optimizer.betas, optimizer.weight_decay, optimizer.grad_clip)
        assert found == ((0.9, 0.999), 0.01, 1.0)


@pytest.mark.parametrize("name", PAPER)
def test_losses_are_the_papers(name):
    train = loaded(name).train
    assert train is not None
    assert train.critic is not None
    loss = train.loss
    assert (train.algorithm, loss.gamma, loss.lam, train.group_size) == ("ppo", 1.0, 1.0, 1)
    assert (loss.clip_low, loss.clip_high, train.critic.value_clip) == (0.2, 0.2, 0.5)
    assert (loss.entropy, loss.kl, loss.kl_in, loss.kl_estimator) == (0.001, 0.001, "reward", "k1")


@pytest.mark.parametrize("name", PAPER)
def test_sampling_and_caps_are_the_papers(name):
    config = loaded(name)
    assert (config.sampling.temperature, config.sampling.top_p) == (1.0, 0.95)
    caps = (config.budget.prompt, config.budget.reply, config.budget.observation)
    assert caps == (2048, 1000, 1000)  # and their sum, the context, is within the paper's 4096
    assert config.context.policies == ("internal_state",)


def test_models_tasks_and_retriever_are_the_papers():
    qa, shop = loaded("paper_qa"), loaded("paper_webshop")
    assert (qa.engine.model, shop.engine.model) == (
        "models/Qwen2.5-7B",
        "models/Qwen2.5-7B-Instruct",
    )
    assert (qa.tasks.num_objectives, qa.retriever.top_k) == ((2,), 3)
