"""Training through servers: what the trainer has learned is what they sample from next."""

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from ledger_runs import run_config  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from standin import Standin, running  # noqa: E402

from mem1.config import RunConfig, VLLMConfig, save_config  # noqa: E402
from mem1.errors import ConfigError, ModelError, StoreError  # noqa: E402
from mem1.train.config import LoraConfig, OptimizerConfig  # noqa: E402
from mem1.train.logbook import METRICS_FILE, read_metrics  # noqa: E402
from mem1.train.tiny import make_tiny  # noqa: E402
from mem1.training import train_policy  # noqa: E402
from mem1.types import Sampling  # noqa: E402

EXACT = 5e-5
"""Nats that a log-probability of the same weights may differ in float32."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    make_tiny(folder, seed=0, hidden=16, layers=2)
    return folder


def served(tiny: Path, *urls: str) -> RunConfig:
    fast = OptimizerConfig(lr=1e-2, warmup=0.5)
    config = run_config(tiny, "grpo", steps=2, save_every=2, optimizer=fast)
    engine = VLLMConfig(
        model=str(tiny), urls=urls, dtype="float32", device="cpu", weights_gap=EXACT
    )
    return replace(config, engine=engine, validation=None)


def gaps(folder: Path) -> list[float]:
    return [row["logprob_gap_max"] for row in read_metrics(folder / METRICS_FILE)]


def test_each_step_is_sampled_from_what_the_step_before_has_learned(tiny, tmp_path):
    servers = [Standin(tiny), Standin(tiny)]
    with running(servers[0]) as one, running(servers[1]) as two:
        train_policy(served(tiny, one, two), folder=tmp_path)
    assert max(gaps(tmp_path)) <= EXACT
    first = load_file(tiny / "model.safetensors")["model.embed_tokens.weight"]
    learned = [server.model.get_input_embeddings().weight for server in servers]
    assert (learned[0] - first).abs().max() > 100 * EXACT
    assert torch.equal(*learned)
    assert [server.asked.count("/collective_rpc") for server in servers] == [2, 2]


def test_servers_sample_a_step_ahead_from_the_weights_before(tiny, tmp_path):
    with running(Standin(tiny)) as url:
        config = served(tiny, url)
        assert config.train is not None
        train = replace(config.train, steps=3, staleness=1)
        train_policy(replace(config, train=train), folder=tmp_path)
    first, *later = gaps(tmp_path)
    assert first <= EXACT
    assert min(later) > 100 * EXACT


def test_adapters_are_merged_into_what_servers_get(tiny, tmp_path):
    pytest.importorskip("peft")
    with running(Standin(tiny)) as url:
        config = served(tiny, url)
        assert config.train is not None
        lora = replace(config.train, lora=LoraConfig(rank=2))
        train_policy(replace(config, train=lora), folder=tmp_path)
    assert max(gaps(tmp_path)) <= EXACT


def test_a_run_that_goes_on_gives_the_servers_its_checkpoints_weights(tiny, tmp_path):
    with running(Standin(tiny)) as url:
        train_policy(served(tiny, url), folder=tmp_path)
    (tmp_path / "config.toml").unlink()
    with running(Standin(tiny)) as url:
        config = served(tiny, url)
        assert config.train is not None
        train_policy(replace(config, train=replace(config.train, steps=3)), folder=tmp_path)
    assert len(gaps(tmp_path)) == 3
    assert max(gaps(tmp_path)) <= EXACT


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"deaf": True}, "it has other weights"),
        ({"resets": False}, "its prefix cache can't be reset"),
        ({"dev_mode": False}, "VLLM_SERVER_DEV_MODE=1"),
        ({"version": "0.15.1"}, "vLLM 0.15.1 can't load weights .* run 0.16 or newer"),
    ],
)
def test_a_server_that_does_not_take_the_weights_ends_the_run(tiny, tmp_path, fault, message):
    with running(Standin(tiny, **fault)) as url, pytest.raises(ModelError, match=message):
        train_policy(served(tiny, url), folder=tmp_path)


def test_a_server_of_another_architecture_ends_the_run(tiny, tmp_path):
    wide = tmp_path / "wide"
    make_tiny(wide, seed=0, hidden=32, layers=2)
    message = "can't load the weights in .*size mismatch"
    with (
        running(Standin(wide, name=str(tiny))) as url,
        pytest.raises(ModelError, match=message),
    ):
        train_policy(served(tiny, url), folder=tmp_path / "run")


def test_log_probabilities_at_another_temperature_are_told_by_servers_started_for_it(
    tiny, tmp_path
):
    def config(url: str, **sampling) -> RunConfig:
        return replace(served(tiny, url), sampling=Sampling(temperature=0.5, **sampling))

    with running(Standin(tiny)) as url, pytest.raises(ConfigError, match="processed_logprobs"):
        train_policy(config(url), folder=tmp_path / "raw")
    with running(Standin(tiny, processed=True)) as url:
        train_policy(config(url), folder=tmp_path / "scaled")
        with pytest.raises(ConfigError, match=r"sampling\.top_p = 0\.9 leaves"):
            train_policy(config(url, top_p=0.9), folder=tmp_path / "cut")
    assert max(gaps(tmp_path / "scaled")) <= EXACT


def test_a_run_that_goes_on_may_start_its_servers_otherwise_but_not_sample_otherwise(
    tiny, tmp_path
):
    config = served(tiny, "http://one")
    save_config(config, tmp_path)
    others = replace(config.engine, urls=("http://two",), start_timeout_s=9.0, work_dir="/tmp")
    save_config(replace(config, engine=others), tmp_path)
    with pytest.raises(StoreError, match=r"other settings \(engine\.dtype\)"):
        save_config(replace(config, engine=replace(config.engine, dtype="bfloat16")), tmp_path)


def test_an_sglang_server_takes_weights_and_tells_log_probabilities_at_any_temperature(
    tiny, tmp_path
):
    server = Standin(tiny, sglang=True)
    with running(server) as url:
        sampling = Sampling(temperature=0.5, top_p=0.9)
        train_policy(replace(served(tiny, url), sampling=sampling), folder=tmp_path)
    assert max(gaps(tmp_path)) <= EXACT
    assert server.asked.count("/update_weights_from_disk") == 2


def test_an_sglang_server_of_another_architecture_ends_the_run(tiny, tmp_path):
    wide = tmp_path / "wide"
    make_tiny(wide, seed=0, hidden=32, layers=2)
    with (
        running(Standin(wide, name=str(tiny), sglang=True)) as url,
        pytest.raises(ModelError, match=r"can't load the weights in .*size mismatch"),
    ):
        train_policy(served(tiny, url), folder=tmp_path / "run")
