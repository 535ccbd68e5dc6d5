"""A trace run again in thought, with some of its spans begun earlier."""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field

from .layout import Part


def replayed(top: Part, beside: Mapping[Part, Part]) -> int:
    """The nanoseconds that a trace would take if each key of `beside` began together with its value.

    A value is a part that began before its key, beside it or beside one that the key is inside. Everything else keeps
    its order and its pauses: a part begins as long after all that had ended before it as it did, and ends as long
    after all that had ended inside it. What a span did itself is neither lost nor moved.
    """
    began: dict[Part, int] = {top: top.start_ns}
    runs = [_Run(top, top.start_ns, top.start_ns)]
    while True:
        run = runs[-1]
        child = run.next()
        if child is not None:
            begins = run.ready(child.start_ns)
            if child in beside:
                begins = began[beside[child]]
            began[child] = begins
            runs.append(_Run(child, child.start_ns, begins))
            continue
        ends = run.ready(run.part.end_ns)
        runs.pop()
        if not runs:
            return ends - top.start_ns
        heapq.heappush(runs[-1].ended, (run.part.end_ns, ends))


@dataclass(slots=True)
class _Run:
    """A part under way: all that had ended until `was`, as it was, has ended by `now` in the replay."""

    part: Part
    was: int
    now: int
    begun: int = 0
    ended: list[tuple[int, int]] = field(default_factory=list)

    def next(self) -> Part | None:
        """The child to begin now, or None where all have begun."""
        children = self.part.children
        if self.begun == len(children):
            return None
        self.begun += 1
        return children[self.begun - 1]

    def ready(self, moment: int) -> int:
        """When the replay gets to what happened in the part at `moment`; moments come in order."""
        while self.ended and self.ended[0][0] <= moment:
            was, now = heapq.heappop(self.ended)
            self.was, self.now = max(self.was, was), max(self.now, now)
        self.now += moment - self.was
        self.was = moment
        return self.now
