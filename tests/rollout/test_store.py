"""The store: lossless, torn-tail safe, one writer; and collect on top of it."""

import asyncio
from dataclasses import replace

import pytest
from worlds import TASK, agent, always, answer, env, play, scripted, search

from mem1.chat import ByteRenderer
from mem1.context import Full
from mem1.engines import ScriptedEngine
from mem1.errors import BudgetError, ConfigError, DataError, EngineError, StoreError
from mem1.rewards import ExactMatchReward
from mem1.rollout import Job, TrajectoryStore, collect, latest, read_trajectories
from mem1.rollout import store as store_module
from mem1.rollout.store import dump_trajectory, load_trajectory


def trajectory():
    return play(scripted(search("ü"), "no action", answer("two")))


def jobs(engine, *, num_tasks: int = 4, context=None) -> list[Job]:
    tasks = [replace(TASK, id=f"t{i}") for i in range(num_tasks)]
    make = agent(engine, context=context)
    return [Job(task=t, agent=make, make_env=env, reward=ExactMatchReward()) for t in tasks]


def test_a_trajectory_survives_json_without_loss():
    played = trajectory()
    assert load_trajectory(dump_trajectory(played)) == played


def test_recurring_segments_are_stored_once():
    played = play(scripted(*[search("s")] * 6), context=Full())
    assert dump_trajectory(played).count(b"Capital of France?") == 2  # prompt and objective


@pytest.mark.parametrize("missing", [1, 7, 100])
def test_a_torn_tail_loses_only_itself_and_writing_goes_on(tmp_path, missing):
    path = tmp_path / "trajectories.jsonl"
    first, second = (replace(trajectory(), sample=sample) for sample in (0, 1))
    with TrajectoryStore(path) as store:
        store.append(first)
        store.append(second)
    path.write_bytes(path.read_bytes()[:-missing])
    with TrajectoryStore(path) as store:
        assert list(store.done.values()) == [first]
        store.append(second)
    assert list(read_trajectories(path)) == [first, second]


def test_a_record_outlives_its_process_and_the_disk_is_asked_once_a_second(tmp_path, monkeypatch):
    now, synced = [0.0], []
    monkeypatch.setattr(store_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(store_module.os, "fsync", lambda _: synced.append(now[0]))
    path = tmp_path / "trajectories.jsonl"
    with TrajectoryStore(path) as store:
        for number, second in enumerate([0.0, 0.9, 1.0, 1.5, 2.0]):
            now[0] = second
            store.append(replace(trajectory(), sample=number))
            assert len(path.read_bytes().splitlines()) == number + 1
        assert synced == [1.0, 2.0]
    store.close()
    assert synced == [1.0, 2.0, 2.0]


def test_every_cut_of_the_last_record_loads(tmp_path):
    path = tmp_path / "trajectories.jsonl"
    line = dump_trajectory(play(scripted(answer("x")))) + b"\n"
    for cut in range(len(line), 2 * len(line)):
        path.write_bytes((line + line)[:cut])
        assert len(list(read_trajectories(path))) in (1, 2)


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "trajectories.jsonl"
    line = dump_trajectory(trajectory())
    path.write_bytes(line + b"\n{broken\n" + line + b"\n")
    with pytest.raises(DataError, match=r"trajectories\.jsonl:2"):
        latest(path)


def test_a_second_writer_is_refused(tmp_path):
    with (
        TrajectoryStore(tmp_path / "t.jsonl"),
        pytest.raises(StoreError, match="another process"),
    ):
        TrajectoryStore(tmp_path / "t.jsonl")


def test_collect_runs_what_is_owed_and_nothing_twice(tmp_path):
    engine = ScriptedEngine(always(answer("x")), codec=ByteRenderer())
    for expected_calls in (4, 4):
        with TrajectoryStore(tmp_path / "t.jsonl") as store:
            done = asyncio.run(collect(jobs(engine), store=store))
        assert [t.task.id for t in done] == ["t0", "t1", "t2", "t3"]
        assert len(engine.requests) == expected_calls


def test_failed_tasks_are_owed_again(tmp_path):
    def once(request):
        return EngineError("down") if len(engine.requests) == 2 else answer("x")

    engine = ScriptedEngine(once, codec=ByteRenderer())
    with TrajectoryStore(tmp_path / "t.jsonl") as store:
        first = asyncio.run(collect(jobs(engine), store=store, concurrency=1))
    assert [t.stop_reason.value for t in first] == ["answered", "engine_error", *["answered"] * 2]
    with TrajectoryStore(tmp_path / "t.jsonl") as store:
        second = asyncio.run(collect(jobs(engine), store=store))
    assert {t.stop_reason.value for t in second} == {"answered"}
    assert len(engine.requests) == 5


@pytest.mark.parametrize("concurrency", [8, 32])
def test_concurrency_does_not_change_a_trajectory(concurrency):
    def outcome(limit: int):
        engine = ScriptedEngine(
            lambda request: search(f"{len(request.prompt_ids)}"), codec=ByteRenderer()
        )
        done = asyncio.run(collect(jobs(engine, num_tasks=40), concurrency=limit))
        return [[(t.prompt_ids, t.completion) for t in played.turns] for played in done]

    assert outcome(concurrency) == outcome(1)


def test_what_was_done_before_an_interrupt_is_kept(tmp_path):
    async def interrupted() -> None:
        me = asyncio.current_task()

        def reply(request):
            if len(engine.requests) == 3:
                me.cancel()
            return answer("x")

        engine = ScriptedEngine(reply, codec=ByteRenderer())
        with TrajectoryStore(path) as store:
            await collect(jobs(engine), store=store, concurrency=1)

    path = tmp_path / "t.jsonl"
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(interrupted())
    assert [t.task.id for t in read_trajectories(path)] == ["t0", "t1", "t2"]


def test_two_jobs_of_one_key_are_refused():
    engine = scripted(answer("x"))
    with pytest.raises(ConfigError, match="two jobs are"):
        asyncio.run(collect(jobs(engine) + jobs(engine)))


def test_a_users_mistake_is_raised_once_and_plainly():
    engine = ScriptedEngine(always("x"), codec=ByteRenderer(), window=10)
    with pytest.raises(BudgetError, match="window is 10"):
        asyncio.run(collect(jobs(engine)))
