"""What verl finds when it loads us: a loop and a trainer of our name, a config that it accepts."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("verl")
import verl_cluster
from verl.experimental.agent_loop.agent_loop import (
    DictConfigWrap,
    _agent_loop_registry,
)
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.trainer.ppo.v1 import PPOTrainerSync, get_trainer_cls
from verl.utils.dataset.rl_dataset import RLHFDataset

from mem1.adapters.verl.__main__ import check_config, compose_config, main
from mem1.adapters.verl.agent_loop import EpisodeLoop, outputs_of
from mem1.adapters.verl.data import export_tasks, row_of, task_of
from mem1.adapters.verl.options import PLUGIN
from mem1.adapters.verl.trainer import TrajectoryTrainer
from mem1.chat.hf import HFRenderer
from mem1.config import RunConfig, load_config
from mem1.errors import ConfigError, DataError, EngineError
from mem1.train.config import ShapingConfig
from mem1.worlds import compose_tasks

pytestmark = pytest.mark.timeout(300)
LEDGER = "configs/learn_grpo.toml"
MODEL = "engine.model=data/ledger/internal_state"


def accepted(config: RunConfig, folder, *overrides: str):
    """verl's config of ours, checked as verl's launcher checks it."""
    composed = compose_config(config, data=folder, overrides=overrides)
    check_config(composed)
    return composed


def test_every_process_of_verl_registers_the_loop_and_the_trainer():
    code = (
        "import verl; from verl.experimental.agent_loop.agent_loop import _agent_loop_registry; "
        "from verl.trainer.ppo.v1 import get_trainer_cls; "
        "print(_agent_loop_registry['mem1']['_target_'], get_trainer_cls('mem1').__name__)"
    )
    variables = os.environ | {"VERL_USE_EXTERNAL_MODULES": PLUGIN}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=variables
    )
    target = "mem1.adapters.verl.agent_loop.EpisodeLoop"
    assert done.stdout.splitlines()[-1] == f"{target} TrajectoryTrainer"


def test_the_trainer_is_verls_own_but_for_how_it_learns():
    assert get_trainer_cls("mem1") is TrajectoryTrainer
    assert issubclass(TrajectoryTrainer, PPOTrainerSync)
    assert _agent_loop_registry["mem1"]["_target_"].endswith(".EpisodeLoop")
    changed = [name for name in vars(TrajectoryTrainer) if name in dir(PPOTrainerSync)]
    assert {name for name in changed if not name.startswith("__")} == {
        "_build_replay_buffer",
        "_setup",
        "_balance_batch",
        "_compute_advantage",
        "_update_critic",
        "_update_actor",
        "_abc_impl",
    }


@pytest.mark.parametrize("name", ["paper_qa", "learn_grpo"])
def test_verl_accepts_the_config_of_a_run_as_it_stands(name, tmp_path):
    composed = accepted(load_config(f"configs/{name}.toml", overrides=[MODEL]), tmp_path)
    assert need_critic(composed) == (name != "learn_grpo")
    assert need_reference_policy(composed) == (name == "paper_qa")
    variables = composed.ray_kwargs.ray_init.runtime_env.env_vars
    assert variables.VERL_USE_EXTERNAL_MODULES == PLUGIN


def test_where_it_runs_is_the_users_and_how_it_learns_the_configs(tmp_path):
    config = load_config("configs/paper_qa.toml", overrides=[MODEL])
    with pytest.raises(ConfigError, match=r"retriever.url = .* with trainer.nnodes = 4"):
        accepted(config, tmp_path, "trainer.nnodes=4")
    reached = load_config(
        "configs/paper_qa.toml", overrides=[MODEL, "retriever.url=http://first:8000/retrieve"]
    )
    composed = accepted(reached, tmp_path, "trainer.nnodes=4", "+trainer.extra=1")
    assert (composed.trainer.nnodes, composed.trainer.extra) == (4, 1)
    with pytest.raises(ConfigError, match=r"data.train_batch_size=8: it follows .* it is 128"):
        accepted(config, tmp_path, "data.train_batch_size=8")
    with pytest.raises(ConfigError, match=r"rollout.name=sglang: .* take vllm"):
        accepted(config, tmp_path, "actor_rollout_ref.rollout.name=sglang")


def test_a_launch_without_its_training_file_says_how_to_write_it(tmp_path, monkeypatch):
    monkeypatch.setenv("VERL_USE_EXTERNAL_MODULES", "")  # which the launcher sets
    with pytest.raises(DataError, match=rf"mem1 data export {LEDGER} --format verl -o "):
        main([LEDGER, "--data", str(tmp_path), "--dry-run"])


def test_the_recipe_runs_up_to_the_start(tmp_path):
    recipe = ["bash", "recipes/verl/paper_qa.sh", "--dry-run"]
    variables = {
        "CONFIG": LEDGER,
        "DATA": str(tmp_path),
        "PYTHON": sys.executable,
    }
    told = {"NODES": "2", "GPUS": "4"}
    done = subprocess.run(
        recipe, capture_output=True, text=True, check=True, env=os.environ | variables | told
    )
    assert f"10000 tasks in {tmp_path}/train.parquet" in done.stdout
    assert "All configuration checks passed" in done.stdout


def test_verls_data_set_reads_every_task(tmp_path):
    config = load_config(LEDGER)
    export_tasks(config, folder=tmp_path, limit=5)
    composed = accepted(config, tmp_path)
    tokenizer = HFRenderer.load(verl_cluster.MODEL)._tokenizer
    rows = RLHFDataset(list(composed.data.train_files), tokenizer, composed.data)
    found = [task_of(rows[n]["extra_info"]) for n in range(len(rows))]
    assert found == compose_tasks(config.tasks, limit=5)
    assert [rows[n]["index"] for n in range(len(rows))] == [0, 1, 2, 3, 4]


def loop(client: object, tmp_path) -> EpisodeLoop:
    composed = accepted(load_config(LEDGER), tmp_path)
    return EpisodeLoop(
        trainer_config=DictConfigWrap(composed),
        server_manager=client,
        tokenizer=HFRenderer.load(verl_cluster.MODEL)._tokenizer,
        processor=None,
        dataset_cls=RLHFDataset,
        data_config=DictConfigWrap(composed.data),
    )


class Script:
    """Says what it's told, as verl's client would; keeps what it was asked."""

    def __init__(self, *replies: str) -> None:
        self.replies, self.asked = list(replies), []
        self.renderer = HFRenderer.load(verl_cluster.MODEL)

    async def generate(self, *, prompt_ids: list[int], **_: object) -> SimpleNamespace:
        self.asked.append(prompt_ids)
        if not self.replies:
            raise ConnectionError("the server is gone")
        ids = list(self.renderer.encode(self.replies.pop(0)))
        logprobs = [-0.5 - place for place in range(len(ids))]
        fields = {"global_steps": len(self.asked)}
        return SimpleNamespace(
            token_ids=ids, log_probs=logprobs, stop_reason="completed", extra_fields=fields
        )


def play(client: Script, tmp_path):
    (task,) = compose_tasks(load_config(LEDGER).tasks, limit=1)
    row = row_of(task, index=0, split="train")
    sampling = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0}
    return asyncio.run(loop(client, tmp_path).run(sampling, session_id=2, **row))


def test_a_row_is_one_context_and_its_reply_token_by_token(tmp_path):
    said = ("<think>vapu 169</think><search>vati</search>", "<think></think><answer>169</answer>")
    client = Script(*said)
    rows = play(client, tmp_path)
    encode = client.renderer.encode
    assert [row.prompt_ids for row in rows] == client.asked
    assert [row.response_ids for row in rows] == [list(encode(text)) for text in said]
    for row in rows:
        size = len(row.response_ids)
        assert row.response_mask == [1] * size
        assert row.response_logprobs == [-0.5 - place for place in range(size)]
        assert (row.num_turns, row.reward_score) == (2, 1.0)
        told = row.extra_fields
        assert (told["min_global_steps"], told["max_global_steps"]) == (1, 2)
        assert told["reward_extra_info"]["em"] == 1.0


def test_an_episode_that_failed_is_no_row_but_a_failed_rollout(tmp_path):
    with pytest.raises(EngineError, match=r"rollout 2: .*the server is gone"):
        play(Script("<think>vapu 169</think><search>vati</search>"), tmp_path)


def test_what_verl_stores_of_a_row_is_what_was_sampled(tmp_path):
    from verl_runs import tasks_of

    trajectories, _ = tasks_of("grpo")
    for turn, row in zip(
        trajectories[1].turns,
        outputs_of(trajectories[1], versions=[4], shaping=ShapingConfig()),
        strict=True,
    ):
        stored = row.as_dict()
        assert tuple(stored["prompts"].tolist()) == turn.prompt_ids
        assert tuple(stored["responses"].tolist()) == turn.completion.token_ids
        assert stored["response_mask"].tolist() == [1] * turn.completion.num_tokens
        assert stored["rollout_log_probs"].tolist() == pytest.approx(turn.completion.logprobs)
        assert stored["rm_scores"].sum() == trajectories[1].reward


def test_an_update_by_verls_fsdp_worker_is_the_update_of_our_own_trainer():
    folders = [
        Path(__file__).parent,
        *(Path(__file__).parents[1] / n for n in ("train", "packing")),
    ]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(folders[0] / "verl_update.py")],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))},
    )
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["steps"] == 2
    for name in ("policy_loss", "entropy", "kl", "grad_norm"):
        verls, own = told[name]
        assert verls == pytest.approx(own, rel=1e-5, abs=1e-6), name
    # Adam makes the most of a gradient's last bits where it's next to zero.
    assert told["moved"] >= 1e-4
    assert told["apart"] <= 1e-5
    assert told["apart_mean"] <= 1e-9
