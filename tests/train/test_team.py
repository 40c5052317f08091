"""Who does what in a team, and what a team of other sizes is told."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from ledger_runs import groups, run_config, tiny_policy, train_config  # noqa: E402

from mem1.config import save_config  # noqa: E402
from mem1.errors import ConfigError, DataError, TrainingError  # noqa: E402
from mem1.packing import pack, sampled_tokens  # noqa: E402
from mem1.train.checkpoint import State  # noqa: E402
from mem1.train.experience import laid_out, longest_rounds, split  # noqa: E402
from mem1.train.memory import memory_advice, step_memory_advice  # noqa: E402
from mem1.train.team import Team, open_team  # noqa: E402
from mem1.training import check_trainable  # noqa: E402


def rows_of(*sizes: int) -> Any:
    return [SimpleNamespace(num_tokens=size) for size in sizes]


def shares(*sizes: int, size: int) -> list[list[tuple[int, bool]]]:
    """Row tokens that each process takes, and whether they count."""
    teams = [Team(rank=rank, size=size) for rank in range(size)]
    return [[(row.num_tokens, c) for row, c in t.rounds(rows_of(*sizes))] for t in teams]


def test_a_round_has_rows_of_about_the_same_size():
    found = shares(5, 9, 4, 8, size=2)
    assert found == [[(9, True), (5, True)], [(8, True), (4, True)]]


def test_who_has_no_row_left_goes_along_with_one_that_does_not_count():
    assert shares(5, 9, 4, size=2) == [[(9, True), (4, True)], [(5, True), (4, False)]]


def test_one_process_takes_the_rows_as_they_come():
    assert shares(5, 9, 4, size=1) == [[(5, True), (9, True), (4, True)]]


def test_a_part_is_every_other_item():
    assert [list(Team(rank=rank, size=2).part("abcde")) for rank in (0, 1)] == [
        ["a", "c", "e"],
        ["b", "d"],
    ]


def test_one_row_is_cut_so_that_all_have_one():
    trajectories, config = groups(6), train_config(row_tokens=4000)
    alone, shared = (laid_out(trajectories, config=config, team_size=n) for n in (1, 2))
    assert (len(alone), len(shared)) == (1, 2)
    assert longest_rounds(shared, team_size=2) < 0.6 * longest_rounds(alone, team_size=2)


def test_rows_of_a_team_hold_each_sampled_token_once():
    trajectories = groups(5)
    tokens, config = sampled_tokens(trajectories), train_config(row_tokens=200)
    (mini_batch,) = split(trajectories, tokens=tokens, config=config, team=Team(size=3))
    teams = [Team(rank=rank, size=3) for rank in range(3)]
    taken = [row for team in teams for row, counts in team.rounds(mini_batch.rows) if counts]
    found = Counter(place for row in taken for place in row.index.tolist())
    assert found == Counter(range(tokens.num_tokens))


def test_a_batch_that_the_processes_do_not_divide_is_refused(tiny, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match=r"batch_size = 4 with 3 processes.* multiple of 3"):
        check_trainable(run_config(tiny))


def test_without_torchrun_nothing_is_opened(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with open_team(device=None, timeout_s=1) as team:
        assert team == Team()
        assert not torch.distributed.is_initialized()


def test_too_little_memory_names_the_setting_and_what_to_set():
    (row,) = pack(groups(1), row_tokens=4000)
    advice = f"row of {row.num_tokens} tokens.*row_tokens = {row.num_tokens // 2} and.*branch"
    with pytest.raises(TrainingError, match=advice), memory_advice(row, config=train_config()):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_too_little_memory_beside_the_rows_names_settings_that_take_less():
    config = train_config(row_tokens=4000)
    advice = r"train\.row_tokens = 2000, .*train\.lora.*cpu_offload = true.*mem1 plan"
    with pytest.raises(TrainingError, match=advice), step_memory_advice(config):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_row_that_is_too_long_is_told_as_such_within_a_step():
    (row,), config = pack(groups(1), row_tokens=4000), train_config()
    with (
        pytest.raises(TrainingError, match=f"row of {row.num_tokens} tokens"),
        step_memory_advice(config),
        memory_advice(row, config=config),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_what_was_advised_may_be_set_in_a_run_that_goes_on(tiny, tmp_path):
    config = run_config(tiny)
    save_config(config, tmp_path)
    assert config.train is not None
    smaller = replace(
        config.train, row_tokens=500, microbatch="branch", gradient_checkpointing=True
    )
    save_config(replace(config, train=smaller), tmp_path)


@pytest.mark.parametrize("change", ["shape", "missing", "more"])
def test_a_checkpoint_of_another_model_is_refused_by_name(tiny, change):
    policy = tiny_policy(tiny, train_config())
    tensors = dict(policy.parts()["policy"].tensors)
    name = "model.norm.weight"
    if change == "shape":
        tensors[name] = torch.zeros(3)
    elif change == "missing":
        del tensors[name]
    else:
        tensors[name := "model.extra"] = torch.zeros(3)
    with pytest.raises(DataError, match=f"another model.*policy {name} is"):
        policy.load_parts({"policy": State(tensors=tensors)})
