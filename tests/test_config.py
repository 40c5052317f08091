"""A run's config: read, checked, saved with the run and held against it."""

from dataclasses import replace
from pathlib import Path

import pytest

from mem1.config import (
    BM25Config,
    LocalConfig,
    RunSettings,
    load_config,
    make_reward,
    parse_policy,
    save_config,
)
from mem1.context import Budget, Full, InternalState, Window
from mem1.errors import BudgetError, ConfigError, StoreError
from mem1.rewards import WebShopReward

MINIMAL = """
[engine]
kind = "local"
model = "models/smol"

[retriever]
kind = "bm25"
corpus = "corpus.jsonl"
"""


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(MINIMAL)
    return path


def test_a_minimal_config_has_defaults_for_the_rest(config_file):
    config = load_config(config_file)
    assert config.engine == LocalConfig(model="models/smol")
    assert config.retriever == BM25Config(corpus="corpus.jsonl")
    assert (config.budget, config.policies()) == (Budget(), (InternalState(),))


def test_overrides_reach_every_component(config_file):
    overrides = [
        "engine.model=other",
        "budget.internal_state=300",
        'context.policies=["full", "window(k=2)"]',
        "tasks.num_objectives=[1, 2]",
        "run.max_turns={1 = 6, 8 = 20}",
    ]
    config = load_config(config_file, overrides=overrides)
    assert config.engine == LocalConfig(model="other")
    assert config.budget == Budget(internal_state=300)
    assert config.policies() == (Full(), Window(k=2))
    assert config.tasks.num_objectives == (1, 2)
    assert config.run.turns_for(8) == 20


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("budget.internal_stat=3", "unknown setting budget.internal_stat: did you mean internal"),
        ("engin.model=x", "unknown setting engin: did you mean engine?"),
        ("engine.max_batch=many", "engine.max_batch = 'many': input should be a valid integer"),
        ("engine.kind=cloud", "engine.kind = 'cloud': it's one of local, openai"),
        ("engine.dtype=int8", "engine.dtype = 'int8': input should be 'float32', 'bfloat16'"),
        ("run.concurrency=0", "run.concurrency = 0: give at least 1"),
        ("context.policies=[]", "context.policies is empty: name some of internal_state, full"),
        ("run.max_turns={1 = 0}", "run.max_turns = {1: 0}: give at least 1"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(config_file, override, message):
    with pytest.raises(ConfigError) as caught:
        load_config(config_file, overrides=[override])
    assert message in str(caught.value)


def test_a_component_checks_its_own_values(config_file):
    with pytest.raises(BudgetError, match=r"budget.action is 0"):
        load_config(config_file, overrides=["budget.action=0"])


def test_a_server_that_takes_token_ids_needs_the_tokenizer(tmp_path):
    path = tmp_path / "server.toml"
    path.write_text(
        '[engine]\nkind = "openai"\nbase_url = "http://localhost:1/v1"\nmodel = "m"\n'
        'mode = "completions"\n[retriever]\nkind = "http"\nurl = "http://localhost:2"\n'
    )
    with pytest.raises(ConfigError, match=r"engine.tokenizer is missing"):
        load_config(path)
    assert load_config(path, overrides=["engine.mode=chat"]).engine.kind == "openai"


def test_no_server_carries(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        '[engine]\nkind = "openai"\nbase_url = "http://localhost:1/v1"\nmodel = "m"\n'
        'mode = "chat"\n[run]\nmode = "carry"\n'
    )
    with pytest.raises(ConfigError, match=r"run.mode = 'carry' with engine.kind = 'openai'"):
        load_config(path)


def test_turns_by_number_of_objectives_must_name_each_number():
    assert RunSettings(max_turns=6).turns_for(16) == 6
    with pytest.raises(ConfigError, match=r"has no entry for tasks of 2 objectives: add  2 = "):
        RunSettings(max_turns={1: 6}).turns_for(2)


@pytest.mark.parametrize(
    ("spec", "policy"),
    [
        ("full", Full()),
        (" window( k = 3 ) ", Window(k=3)),
        ("internal_state()", InternalState()),
        ("mem1.context.window:Window(k=2)", Window(k=2)),
    ],
)
def test_a_policy_is_made_of_its_name_and_settings(spec, policy):
    assert parse_policy(spec) == policy


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ful", "context.policies: unknown ful: did you mean full?"),
        ("window(kk=2)", "unknown setting context.policies.window.kk"),
        ("window(k=two)", "write settings as  k=2"),
        ("window(k='2')", "context.policies.window.k = '2': input should be a valid integer"),
        ("window(k=0)", "window k is 0"),
        ("window k=2", "isn't of the form"),
        ("nowhere.at_all:Thing", "context.policies nowhere.at_all:Thing: No module named"),
        (
            "mem1.context:Nothing",
            "context.policies mem1.context:Nothing: module 'mem1.context' has",
        ),
        ("mem1.types:Sampling", "it's no ContextPolicy"),
        ("pathlib:Path", "it's no ContextPolicy"),
        ("pathlib:Path(k=2)", "isn't a dataclass"),
        ("functools:partial", "can't be made without settings"),
        ("window-2", "context.policies: unknown window-2: did you mean window?"),
    ],
)
def test_a_policy_that_cannot_be_made_is_named(spec, message):
    with pytest.raises(ConfigError) as caught:
        parse_policy(spec)
    assert message in str(caught.value)


def test_a_saved_config_loads_as_an_equal_one(config_file, tmp_path):
    overrides = ["run.max_turns={1 = 6, 8 = 20}", "sampling.seed=3", 'tasks.files=["a b.jsonl"]']
    config = load_config(config_file, overrides=overrides)
    save_config(config, tmp_path / "run")
    assert load_config(tmp_path / "run" / "config.toml") == config


def test_a_folder_refuses_a_run_with_other_settings(config_file, tmp_path):
    config = load_config(config_file)
    save_config(config, tmp_path / "run")
    other = replace(config, budget=Budget(action=9), run=RunSettings(concurrency=2, samples=2))
    with pytest.raises(StoreError, match=r"other settings \(budget.action, run.samples\)"):
        save_config(other, tmp_path / "run")


def test_a_continued_run_may_go_faster(config_file, tmp_path):
    config = load_config(config_file)
    save_config(config, tmp_path / "run")
    save_config(replace(config, run=RunSettings(concurrency=2)), tmp_path / "run")
    assert load_config(tmp_path / "run" / "config.toml").run.concurrency == 2


def test_a_reward_takes_settings_and_unknown_ones_are_named():
    assert make_reward("webshop(format_fault = -1)") == WebShopReward(format_fault=-1.0)
    with pytest.raises(ConfigError, match=r"unknown setting run\.reward\.webshop\.fault"):
        make_reward("webshop(fault = -1)")
    with pytest.raises(ConfigError, match=r"run\.reward: unknown emm: did you mean em\?"):
        make_reward("emm")
