"""Requests go where their prompt is cached, and nobody waits behind a replica that is too busy."""

from mem1.engines.vllm.routes import Routes

RULES = tuple(range(1000, 1040))
"""How every prompt begins."""


def prompt(task: int, *more: int) -> tuple[int, ...]:
    return (*RULES, *[task] * 40, *more)


def served(routes: Routes, *prompts: tuple[int, ...]) -> list[int]:
    """The replicas of requests that come one after the other."""
    found: list[int] = []
    for one in prompts:
        found.append(routes.enter(one))
        routes.leave(found[-1])
    return found


def at_once(routes: Routes, *prompts: tuple[int, ...]) -> list[int]:
    return [routes.enter(one) for one in prompts]


def test_tasks_spread_over_the_replicas_once_all_have_the_rules():
    routes = Routes(3)
    at_once(routes, *[RULES] * 30)
    assert sorted(at_once(routes, *map(prompt, range(6)))) == [0, 0, 1, 1, 2, 2]


def test_a_later_turn_goes_where_the_first_one_was():
    routes = Routes(2)
    first = at_once(routes, *[prompt(task) for task in range(40)])
    for replica in first:
        routes.leave(replica)
    assert sorted(set(first)) == [0, 1]
    later = served(routes, *[prompt(task, 7, 8, 9) for task in range(40)])
    assert later == first


def test_the_rollouts_of_a_task_share_a_replica_until_it_is_too_busy():
    found = at_once(Routes(2), *[prompt(1)] * 20)
    assert found[:9] == [0] * 9
    assert (found.count(0), found.count(1)) == (10, 10)


def test_after_forgetting_only_load_counts():
    routes = Routes(2)
    at_once(routes, *[prompt(1)] * 3)
    routes.forget()
    assert routes.enter(prompt(1)) == 1


def test_requests_in_flight_are_counted():
    routes = Routes(2)
    routes.leave(routes.enter((1, 2)))
    routes.enter((1, 2))
    assert routes.in_flight == 1


def test_a_replica_that_was_dropped_gets_nothing_however_idle_it_is():
    routes = Routes(2)
    served(routes, prompt(1))
    routes.drop(0)
    assert at_once(routes, *[prompt(1)] * 20) == [1] * 20
    assert routes.left == {1}
