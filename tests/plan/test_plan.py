"""What a plan counts, when it fits, and advice that makes it fit. Of the model nothing is here."""

from dataclasses import replace

import pytest

from mem1.config import RunConfig
from mem1.errors import ConfigError
from mem1.plan import Change, Machine, Plan, plan_run
from mem1.settings import build, to_table

RUN = {
    "engine": {"kind": "local", "model": "models/Qwen2.5-1.5B", "max_batch": 8},
    "budget": {"prompt": 400, "internal_state": 100, "action": 50, "observation": 200},
    "tasks": {"num_objectives": [2]},
    "run": {"max_turns": 3},
    "train": {"algorithm": "grpo", "steps": 1, "batch_size": 4, "group_size": 2},
}
P = 1_543_714_304
EMBEDDING, HIDDEN = 151_936 * 1536, 1536
PPO = {"algorithm": "ppo", "group_size": 1, "critic": {"kind": "separate"}, "loss": {"kl": 0.1}}
LORA = {"lora": {"rank": 16}}
ADAPTERS = 18_464_768
SERVER = {"kind": "openai", "model": "any", "base_url": "http://localhost/v1", "mode": "chat"}
PHASES = ("sampling", "update", "step")
VLLM = {"kind": "vllm", "model": "models/Qwen2.5-1.5B", "devices": ["1"]}


def configured(**changes: dict | None) -> RunConfig:
    """The run with settings of its tables changed; None: without the table."""
    told = {name: old | (changes.get(name) or {}) for name, old in RUN.items()}
    kept = {name: table for name, table in told.items() if changes.get(name, {}) is not None}
    return build(RunConfig, kept)


def gpus(devices: int = 1, *, gib: float = 80) -> Machine:
    return Machine(devices=devices, memory=int(gib * 2**30))


def planned(machine: Machine, **changes: dict | None) -> Plan:
    return plan_run(configured(**changes), machine)


def served(engine: dict, **tables: dict) -> RunConfig:
    return build(RunConfig, {"engine": engine, **tables})


def sizes(plan: Plan) -> dict[str, int]:
    return {item.name: item.bytes for item in plan.items}


def test_weights_are_counted_as_they_are_held_in_bfloat16():
    found = sizes(planned(gpus()))
    held = [found[name] for name in ("weights", "float32 copies", "optimizer", "gradients")]
    assert held == [2 * P, 4 * P, 8 * P, 4 * P]


def test_weights_of_float32_need_no_copies():
    found = sizes(planned(gpus(), engine={"dtype": "float32"}))
    assert [found["weights"], found["optimizer"]] == [4 * P, 8 * P]
    assert "float32 copies" not in found


def test_with_adapters_only_these_have_an_optimizer():
    plan = planned(gpus(), train=LORA)
    found = sizes(plan)
    assert (plan.parameters, plan.trained) == (P, ADAPTERS)
    held = [found[name] for name in ("weights", "optimizer", "gradients", "merged copy")]
    one = 2 * P + 4 * ADAPTERS
    assert held == [one, 8 * ADAPTERS, 4 * ADAPTERS, one]
    assert tuple(plan.phases) == (*PHASES, "export")


def test_a_critic_of_its_own_and_a_reference_cost_models():
    plan = planned(gpus(), train=PPO)
    found = sizes(plan)
    assert plan.critic == P + HIDDEN + 1
    assert found["reference"] == 2 * P
    assert found["critic and its optimizer"] == (2 + 4 + 8) * P
    assert found["gradients"] == 2 * 4 * P


def test_a_critic_of_fewer_layers_costs_those():
    critic = {"kind": "separate", "num_layers": 1}
    plan = planned(gpus(), train=PPO | {"critic": critic})
    whole = planned(gpus(), train=PPO)
    spared = whole.critic - plan.critic
    assert spared == 27 * 46_797_824
    assert sizes(whole)["gradients"] - sizes(plan)["gradients"] == 4 * spared


def test_a_critic_of_one_layer_costs_a_layer():
    plan = planned(gpus(), train=PPO | {"critic": {"kind": "head"}})
    assert plan.critic == HIDDEN + 1
    assert "critic and its optimizer" not in sizes(plan)


def test_processes_share_what_trains_and_each_has_a_copy_to_sample_from():
    plan = planned(gpus(4))
    found = sizes(plan)
    held = [found[name] for name in ("weights", "optimizer", "gradients", "copy that samples")]
    assert held == [P, 2 * P, P, 2 * P]
    assert (plan.processes, plan.host) == (4, 4 * 4 * P)


def test_what_is_offloaded_lies_in_the_machines_memory():
    plan = planned(gpus(4), train={"distributed": {"cpu_offload": True}})
    there = {item.name for item in plan.items if item.on_host}
    assert there == {"weights", "optimizer", "gradients"}
    shared = planned(gpus(4)).phases
    found = sizes(plan)
    assert shared["sampling"] - plan.phases["sampling"] == found["weights"] + found["optimizer"]


def test_keys_and_values_are_of_all_rows_at_the_bound():
    plan = planned(gpus(), engine={"prefix_cache_tokens": 1000})
    assert plan.bound == 400 + 2 * 150 + 200
    # 2 heads of 128, keys and values of bfloat16, in 28 layers.
    of_a_token = 2 * 2 * 128 * 2 * 28
    assert sizes(plan)["keys and values"] == (8 * (plan.bound + 256) + 1000) * of_a_token


def test_a_step_takes_every_turn_of_every_episode():
    plan = planned(gpus())
    turns = 4 * 2 * 3
    assert plan.step_tokens.most == turns * plan.bound
    # Half of each cap; the prompt once for each task.
    assert plan.step_tokens.expected == 4 * 200 + turns * (150 + 100)


def test_caps_that_are_filled_to_more_make_a_longer_step():
    full = plan_run(configured(), gpus(), fill=1.0)
    assert full.step_tokens.expected == 4 * 400 + 24 * 500


def test_recomputed_layers_take_less():
    stored = sizes(planned(gpus(), train={"row_tokens": 8192}))
    again = sizes(planned(gpus(), train={"row_tokens": 8192, "gradient_checkpointing": True}))
    assert 10 * again["activations"] < stored["activations"]


def test_activations_are_of_a_row():
    rows = [
        sizes(planned(gpus(), train={"row_tokens": size}))["activations"] for size in (1000, 2000)
    ]
    assert rows[1] == 2 * rows[0]


def test_sampling_during_the_update_takes_its_memory_then():
    apart, during = (planned(gpus(), train={"staleness": number}) for number in (0, 1))
    found = sizes(during)
    more = ("copy that samples", "reading prompts", "logits")
    assert during.phases["update"] - apart.phases["update"] == sum(found[name] for name in more)


def test_episodes_alone_need_weights_and_keys():
    plan = planned(gpus(), train=None)
    assert tuple(plan.phases) == ("sampling",)
    assert list(sizes(plan)) == ["weights", "keys and values", "reading prompts", "logits"]
    assert (plan.trained, plan.step_tokens) == (0, None)


@pytest.mark.parametrize(
    ("bfloat16", "train", "dtype"),
    [(True, None, "bfloat16"), (False, None, "float32"), (True, {}, "float32")],
)
def test_a_cpu_samples_in_bfloat16_if_it_has_it_and_trains_in_float32(bfloat16, train, dtype):
    machine = Machine(memory=2**40, kind="cpu", bfloat16=bfloat16)
    assert planned(machine, train=train).dtype == dtype


def test_vllm_servers_have_the_model_and_plan_their_own_memory():
    plan = plan_run(served(VLLM), gpus())
    assert (plan.items, plan.peak, plan.fits) == ((), 0, True)
    assert plan.places == ("vLLM servers sample: 1 (they plan their own memory)",)


def test_one_process_trains_for_vllm_servers_however_many_devices():
    plan = plan_run(served(VLLM, train=RUN["train"] | LORA), gpus(4))
    assert plan.processes == 1
    assert "keys and values" not in sizes(plan)
    assert plan.places[0] == "one GPU trains"


def test_with_a_server_nothing_runs_here():
    with pytest.raises(ConfigError, match="nothing is trained, there is nothing to plan"):
        plan_run(served(SERVER), gpus())


def test_it_fits_if_a_tenth_stays_free():
    peak = planned(gpus()).peak
    enough, short = (Machine(memory=int(peak / 0.9) + more) for more in (2, -2))
    assert [planned(machine).fits for machine in (enough, short)] == [True, False]
    assert planned(enough).advice == ()


@pytest.mark.parametrize(
    ("devices", "changes", "problem"),
    [
        (1, {"row_tokens": 100}, "train.row_tokens = 100, but a turn takes up to 900 tokens"),
        (3, {}, "train.batch_size = 4 with 3 processes: set a multiple of 3"),
    ],
)
def test_what_could_not_run_is_a_problem_whatever_the_memory(devices, changes, problem):
    plan = planned(gpus(devices, gib=4000), train=changes)
    assert (plan.has_room, plan.fits) == (True, False)
    assert problem in plan.problems[0]


def test_a_bound_beyond_the_window_is_a_problem():
    plan = planned(gpus(gib=4000), budget={"prompt": 40_000}, train={"row_tokens": 50_000})
    assert "32768" in plan.problems[0].replace(",", "")


@pytest.mark.parametrize("fill", [0.0, 1.1])
def test_a_share_is_more_than_none_and_at_most_all(fill):
    with pytest.raises(ConfigError, match=r"--fill .*: give more than 0, at most 1"):
        plan_run(configured(), gpus(), fill=fill)


def applied(config: RunConfig, machine: Machine, change: Change) -> tuple[RunConfig, Machine]:
    """What a user does who follows the advice."""
    if change.setting == "--devices":
        return config, replace(machine, devices=change.value)
    table = to_table(config)
    *path, last = change.setting.strip("[]").split(".")
    within = table
    for name in path:
        within = within[name]
    within[last] = {} if change.value is None else change.value
    return build(RunConfig, table), machine


CROWDED = {
    "settings that cost time": (gpus(gib=44), {"row_tokens": 16_384}),
    "two devices": (gpus(2, gib=24), {"row_tokens": 2048}),
    "a critic": (gpus(gib=60), PPO | {"row_tokens": 4096}),
    "adapters": (gpus(gib=16), {"row_tokens": 65_536}),
    "a CPU": (Machine(memory=36 * 2**30, kind="cpu"), {"row_tokens": 8192}),
}


@pytest.mark.parametrize("case", CROWDED)
def test_every_way_that_is_advised_fits(case):
    machine, changes = CROWDED[case]
    config = configured(train=changes)
    plan = plan_run(config, machine)
    assert not plan.fits
    assert plan.advice
    for way in plan.advice:
        found = config, machine
        for change in way:
            found = applied(*found, change)
        assert plan_run(*found).has_room, way


def test_a_number_that_is_advised_is_the_largest_that_fits():
    machine, changes = CROWDED["settings that cost time"]
    plan = planned(machine, train=changes)
    ((change,),) = [way for way in plan.advice if way[0].setting == "train.row_tokens"]
    one_more = changes | {"row_tokens": change.value + 1}
    assert not planned(machine, train=one_more).has_room


def test_what_never_fits_has_no_advice():
    plan = planned(gpus(gib=2))
    assert (plan.fits, plan.advice) == (False, ())


def test_changes_read_as_settings():
    told = [
        Change(setting="train.row_tokens", value=5),
        Change(setting="--devices", value=2),
        Change(setting="train.gradient_checkpointing", value=True),
        Change(setting="[train.lora]", value=None),
    ]
    assert list(map(str, told)) == [
        "train.row_tokens = 5",
        "--devices 2",
        "train.gradient_checkpointing = true",
        "[train.lora]",
    ]


def test_a_run_for_vllm_servers_may_need_two_dear_settings_at_once():
    train = RUN["train"] | PPO | {"row_tokens": 4096, "gradient_checkpointing": True}
    plan = plan_run(served(VLLM, train=train), gpus(gib=16))
    settings = [[change.setting for change in way] for way in plan.advice]
    assert settings == [["train.critic.kind", "[train.lora]"]]


def test_what_costs_time_alone_is_advised_before_what_costs_more():
    machine, changes = CROWDED["a CPU"]
    ways = [list(map(str, way)) for way in planned(machine, train=changes).advice]
    recomputed = "train.gradient_checkpointing = true"
    assert ways == [
        [recomputed, "engine.prefix_cache_tokens = 32768"],
        ["[train.lora]", recomputed],
    ]
