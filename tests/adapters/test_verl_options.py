"""One config for both trainers: what verl is told follows from it, or it is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from mem1.adapters.verl.options import (
    check_for_verl,
    check_reach,
    default_options,
    owned_options,
    read_config,
    window_of,
    write_config,
)
from mem1.config import RunConfig, load_config
from mem1.errors import ConfigError

MODEL = "engine.model=data/ledger/internal_state"


def paper(*overrides: str) -> RunConfig:
    return load_config("configs/paper_qa.toml", overrides=[MODEL, *overrides])


def test_the_papers_run_in_verls_words():
    told = owned_options(paper(), data=Path("/data"))
    named = {
        "data.train_files": ["/data/train.parquet"],
        "data.val_files": ["/data/train.parquet"],
        "data.train_batch_size": 128,
        "data.max_response_length": 1000,
        "actor_rollout_ref.rollout.n": 1,
        "actor_rollout_ref.rollout.top_p": 0.95,
        "actor_rollout_ref.rollout.logprobs_mode": "raw_logprobs",
        "actor_rollout_ref.actor.ppo_mini_batch_size": 64,
        "actor_rollout_ref.actor.optim.lr": 1e-6,
        "actor_rollout_ref.actor.optim.lr_warmup_steps_ratio": 0.05,
        "actor_rollout_ref.actor.entropy_coeff": 0.001,
        "algorithm.adv_estimator": "gae",
        "algorithm.use_kl_in_reward": True,
        "critic.enable": True,
        "critic.optim.lr": 1e-5,
        "critic.cliprange_value": 0.5,
        "trainer.total_training_steps": 500,
        "trainer.test_freq": -1,
    }
    assert {name: told[name] for name in named} == named


def test_the_servers_have_room_for_the_bound_and_no_more():
    config = paper()
    (policy,) = config.policies()
    assert window_of(config) == policy.bound(config.budget)
    told = owned_options(config, data=Path("/data"))
    assert told["data.max_prompt_length"] + told["data.max_response_length"] == window_of(config)
    assert told["actor_rollout_ref.rollout.max_model_len"] == window_of(config)


def test_a_policy_without_a_bound_gets_the_models_window():
    assert window_of(paper('context.policies=["full"]')) == 4096


def test_groups_are_compared_without_a_critic():
    config = load_config("configs/learn_grpo.toml", overrides=["sampling.top_p=1.0"])
    told = owned_options(config, data=Path("/data"))
    assert config.train is not None
    assert told["critic.enable"] is False
    assert told["algorithm.adv_estimator"] == "grpo"
    assert told["actor_rollout_ref.rollout.n"] == config.train.group_size
    assert told["actor_rollout_ref.rollout.logprobs_mode"] == "processed_logprobs"


def test_what_may_be_changed_does_not_follow_from_the_config():
    config = paper()
    assert not default_options(config).keys() & owned_options(config, data=Path("/data")).keys()


def test_workers_on_other_machines_read_the_same_config():
    config = paper()
    told = read_config(write_config(config))
    model = str(Path("data/ledger/internal_state").absolute())
    assert told == replace(config, engine=replace(config.engine, model=model))


def test_a_corpus_is_found_from_wherever_workers_work():
    told = read_config(write_config(load_config("configs/smollm2_grpo.toml", overrides=[MODEL])))
    assert told.retriever is not None
    assert told.retriever.corpus == str(Path("data/hotpot_nq/corpus.jsonl.gz").absolute())


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_a_retriever_that_other_machines_cannot_reach_is_refused(host):
    config = paper(f"retriever.url=http://{host}:8000/retrieve")
    with pytest.raises(ConfigError, match=r"trainer\.nnodes = 2: .* --set retriever\.url=http"):
        check_reach(config, num_machines=2)
    check_reach(config, num_machines=1)
    check_reach(paper("retriever.url=http://node1:8000/retrieve"), num_machines=2)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("train.critic.kind=head", "train.critic.kind"),
        ("train.critic.num_layers=2", "train.critic.num_layers"),
        ("train.optimizer.cooldown=0.1", "train.optimizer.cooldown"),
        ("train.lora.rank=8", "train.lora"),
        ("run.mode=carry", "run.mode"),
        ("train.curriculum.threshold=0.5", "train.curriculum"),
        ("sampling.temperature=0.7", "sampling.temperature = 0.7 with sampling.top_p = 0.95"),
    ],
)
def test_what_verl_cannot_do_is_refused_by_name(override, named):
    with pytest.raises(ConfigError, match=named):
        check_for_verl(paper(override))
