"""`handrail worker` and `handrail serve`, stopped by signals while they execute an approved action."""

import itertools
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.worker.desk import COMMANDS, Desk, stop, working

INT, TERM = signal.SIGINT, signal.SIGTERM
SIGNALS = (INT, TERM)
KINDS = ("coroutine", "thread")
MakeDesk = Callable[..., Desk]


@pytest.fixture
def make_desk(tmp_path: Path) -> Iterator[MakeDesk]:
    desks: list[Desk] = []

    def make(**options: Any) -> Desk:
        desks.append(Desk(tmp_path, **options))
        return desks[-1]

    yield make
    for desk in desks:
        desk.runtime.close()


def _most_slow(*axes: Any, fast: set[tuple[Any, ...]]) -> list[Any]:
    return [
        pytest.param(*values, marks=() if values in fast else pytest.mark.slow) for values in itertools.product(*axes)
    ]


async def _left_resumable(desk: Desk) -> None:
    """The run is as after `kill -9`, but at once: another worker takes it, and does not act again."""
    assert await desk.state() == ("interrupted", "executing")
    job = await desk.job()
    assert (job.state, job.attempts, job.worker) == ("waiting", 0, None)
    assert await desk.work() == 1
    assert await desk.state() == ("escalated", "unknown_after_crash")
    assert desk.words() == ["begun"]
    assert await desk.holds() == ["settled"]


@pytest.mark.parametrize(
    ("command", "number", "kind"),
    _most_slow(COMMANDS, SIGNALS, KINDS, fast={("serve", TERM, "thread")}),
)
async def test_what_is_running_may_end(make_desk: MakeDesk, command: str, number: signal.Signals, kind: str) -> None:
    """A process that is stopped lets the action and its run end within the grace period, and exits with 0."""
    desk = make_desk(seconds=1.5, grace=20)
    await desk.approve(kind)
    with working(desk, *COMMANDS[command]) as process:
        assert stop(process, number, within=15) == 0
    assert await desk.state() == ("answered", "executed")
    assert (await desk.job()).state == "done"
    assert desk.words() == ["begun", "ended"]


@pytest.mark.parametrize(
    ("command", "number", "kind"),
    _most_slow(COMMANDS, SIGNALS, KINDS, fast={("worker", INT, "thread")}),
)
async def test_after_the_grace_period(make_desk: MakeDesk, command: str, number: signal.Signals, kind: str) -> None:
    """What takes longer than the grace period is left resumable; the process exits soon, and no thread keeps it."""
    desk = make_desk(seconds=60, grace=0)
    await desk.approve(kind)
    with working(desk, *COMMANDS[command]) as process:
        assert stop(process, number, within=12) == 0
    await _left_resumable(desk)


@pytest.mark.slow
@pytest.mark.parametrize(("command", "number", "kind"), list(itertools.product(COMMANDS, SIGNALS, KINDS)))
async def test_a_second_signal(make_desk: MakeDesk, command: str, number: signal.Signals, kind: str) -> None:
    """A second signal ends the grace period."""
    desk = make_desk(seconds=60, grace=50)
    await desk.approve(kind)
    with working(desk, *COMMANDS[command]) as process:
        assert stop(process, number, number, within=12) == 0
    await _left_resumable(desk)


@pytest.mark.slow
@pytest.mark.parametrize(("command", "kind"), list(itertools.product(COMMANDS, ("stubborn", "blocking"))))
async def test_an_action_that_cannot_be_cancelled(make_desk: MakeDesk, command: str, kind: str) -> None:
    """A process ends although an action swallows its cancellation or blocks the event loop; its leases end later."""
    desk = make_desk(seconds=90, grace=0)
    await desk.approve(kind)
    with working(desk, *COMMANDS[command]) as process:
        assert stop(process, TERM, within=25) in (0, 1)
    status, state = await desk.state()
    assert (status in ("running", "interrupted"), state) == (True, "executing")


@pytest.mark.slow
@pytest.mark.parametrize(("command", "kind"), list(itertools.product(COMMANDS, KINDS)))
async def test_on_postgres(make_desk: MakeDesk, postgres_url: str, command: str, kind: str) -> None:
    """On Postgres too a stopped run is left resumable."""
    desk = make_desk(seconds=60, grace=0, store=postgres_url)
    await desk.approve(kind)
    with working(desk, *COMMANDS[command]) as process:
        assert stop(process, TERM, within=12) == 0
    await _left_resumable(desk)
