"""Computes how long a trace would have taken if some of its spans had started earlier."""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field

from .timeline import TimelineNode


def simulate_duration(top: TimelineNode, starts_with: Mapping[TimelineNode, TimelineNode]) -> int:
    """The nanoseconds a trace would take if each key of `starts_with` started together with its value.

    Everything else keeps its order and its pauses: a node starts with the recorded delay after everything that had
    ended before it, and ends with the recorded delay after everything that had ended inside it. So the own time of a
    span neither disappears nor moves.

    Args:
        top: The trace.
        starts_with: The nodes that move, each with the node it starts with: one that started earlier, and is a sibling
            of it or of a node that contains it.
    """
    started: dict[TimelineNode, int] = {top: top.start_ns}
    replays = [_Replay(top, top.start_ns, top.start_ns)]
    while True:
        replay = replays[-1]
        child = replay.next()
        if child is not None:
            start = replay.simulated_at(child.start_ns)
            if child in starts_with:
                start = started[starts_with[child]]
            started[child] = start
            replays.append(_Replay(child, child.start_ns, start))
            continue
        end = replay.simulated_at(replay.node.end_ns)
        replays.pop()
        if not replays:
            return end - top.start_ns
        heapq.heappush(replays[-1].ended, (replay.node.end_ns, end))


@dataclass(slots=True)
class _Replay:
    """A node being replayed: the time `recorded` in the trace corresponds to the time `simulated` in the replay."""

    node: TimelineNode
    recorded: int
    simulated: int
    started: int = 0
    """The number of children that have started."""
    ended: list[tuple[int, int]] = field(default_factory=list)
    """The recorded and simulated ends of children, as a heap."""

    def next(self) -> TimelineNode | None:
        """The child to start now, or None if all have started."""
        children = self.node.children
        if self.started == len(children):
            return None
        self.started += 1
        return children[self.started - 1]

    def simulated_at(self, time_ns: int) -> int:
        """The time in the replay that corresponds to `time_ns` in the trace; successive calls must not go back."""
        while self.ended and self.ended[0][0] <= time_ns:
            recorded, simulated = heapq.heappop(self.ended)
            self.recorded, self.simulated = max(self.recorded, recorded), max(self.simulated, simulated)
        self.simulated += time_ns - self.recorded
        self.recorded = time_ns
        return self.simulated
