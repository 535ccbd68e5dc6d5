"""Helpers for tests of governed agents: a clock that the test advances, a store of its own, crashes at any commit.

Example::

    clock = VirtualClock()
    with sandbox(tmp_path, model=FunctionModel(script), clock=clock) as runtime:
        outcome = await support.run("Where is my parcel?", user="u-1")
        clock.advance(3600)
"""

from .clock import VirtualClock
from .kill_points import kill_at_commit
from .sandbox import sandbox

__all__ = ["VirtualClock", "kill_at_commit", "sandbox"]
