"""THE NEXT STEP'S EPISODES, SAMPLED DURING THE UPDATE: `train.staleness = 1`.

    batch(1)  refresh: weights 0, collect 1 · begin 2
    update 1                                 |   2 is sampled from weights 0
    batch(2)  wait for 2 · refresh: weights 1 · begin 3
    update 2                                 |   3 is sampled from weights 1

A batch is sampled from one copy of the weights, that of one step before; which one doesn't depend
on how fast anything is, and so the same seed gives the same run. What the copy's age changes in the
log-probabilities is what the loss corrects for as it corrects for other kernels: by
`importance_weights` between the sampler and the weights at the start of the update.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from mem1.train.curriculum import Level
from mem1.train.sources import Rollouts
from mem1.types import Trajectory


@dataclass(slots=True, kw_only=True, eq=False)
class Ahead:
    """A source that collects one step ahead, in a thread of its own."""

    source: Rollouts
    last_step: int
    """No episodes beyond it."""
    refresh: Callable[[], None]
    """Brings the copy of the weights that samples up to date; called while nothing is sampled."""
    _thread: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(max_workers=1, thread_name_prefix="mem1-ahead")
    )
    _next: tuple[int, Future[list[Trajectory]]] | None = None

    def batch(self, step: int, *, level: Level) -> list[Trajectory]:
        """As `Rollouts.batch`; the level is the one that was known when the batch was begun."""
        if self._next is None:
            self.refresh()
            self._begin(step, level=level)
        assert self._next is not None
        begun, collecting = self._next
        assert begun == step, "steps follow each other"
        own, self._next = collecting.result(), None
        found = self.source.whole(step, own=own)
        if step < self.last_step:
            self.refresh()
            self._begin(step + 1, level=level)
        return found

    def validate(self, step: int, *, level: Level) -> list[Trajectory]:
        """As `Rollouts.validate`, once the episodes under way are over."""
        if self._next is not None:
            self._next[1].result()
        self.refresh()
        return self.source.validate(step, level=level)

    def forget_after(self, step: int) -> None:
        self.source.forget_after(step)

    def close(self) -> None:
        """Stop what is under way."""
        self.source.stop()
        self._thread.shutdown(cancel_futures=True)

    def _begin(self, step: int, *, level: Level) -> None:
        self._next = step, self._thread.submit(self.source.own, step, level=level)
