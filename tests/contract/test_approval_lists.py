"""Lists of approvals, on every database: what needs a person, in which order, and what counts as expired."""

from datetime import datetime, timedelta
from typing import Any

from handrail.kernel.db.database import Database
from handrail.review.approvals.model import DECISION_PERIOD, StateFilter
from handrail.review.approvals.queries import list_approvals
from handrail.review.approvals.store import begin, decide, fail, propose, recover, settle_uncertain
from tests.review.samples import DIGEST, NOW, ROLES, approval

MINUTE = timedelta(minutes=1)
LATE = NOW + DECISION_PERIOD


async def listed(database: Database, state: StateFilter | None, now: datetime = NOW, **more: Any) -> dict[str, str]:
    """The ids of the listed approvals in order, each with its state."""
    filters = {"tenant": None, "limit": 10, "before": None, **more}
    found = await database.read(list_approvals(now, state=state, **filters))
    return {item.approval_id: item.state for item in found}


async def execute(database: Database, approval_id: str, *, failed: bool) -> None:
    """Begins an approved action, which then fails or loses its process."""
    await database.write(decide(approval_id, "approved", "ann", ROLES, None, NOW))
    await database.write(begin(approval_id, DIGEST, NOW))
    await database.write(fail(approval_id, "timeout") if failed else recover(f"run_{approval_id}", NOW))


async def fill(database: Database) -> None:
    """Stores two pending approvals, and two newer ones whose actions are uncertain."""
    for number, id_ in enumerate(("newer", "older", "failed", "lost")):
        minutes = number - 10 if id_ != "older" else -20
        await database.write(propose([approval(id_, run_id=f"run_{id_}", proposed_at=NOW + minutes * MINUTE)]))
    await execute(database, "failed", failed=True)
    await execute(database, "lost", failed=False)


async def test_what_needs_a_person(database: Database) -> None:
    """Uncertain actions come before pending ones, however new, each the oldest first; the pages of the list fit."""
    await fill(database)
    expected = {"failed": "failed", "lost": "unknown_after_crash", "older": "pending", "newer": "pending"}
    assert list((await listed(database, "open")).items()) == list(expected.items())
    assert [*await listed(database, "uncertain")] == ["failed", "lost"]
    pages, before = [], None
    while page := [*await listed(database, "open", limit=1, before=before)]:
        [before] = page
        pages.append(before)
    assert pages == list(expected)


async def test_a_page_after_an_action_that_was_settled_meanwhile(database: Database) -> None:
    """If the last action of a page is settled or decided before the next page is read, nothing is left out."""
    await fill(database)
    await database.write(settle_uncertain("failed", False, "ann", ROLES, None, NOW))
    assert [*await listed(database, "open", before="failed")] == ["lost", "older", "newer"]
    await database.write(decide("older", "denied", "ann", ROLES, None, NOW))
    assert [*await listed(database, "open", before="older")] == ["newer"]


async def test_an_overdue_approval_needs_nobody(database: Database) -> None:
    """From its expiry on, a pending approval is expired in every list, though its row is not; uncertain ones remain."""
    await fill(database)
    assert [*await listed(database, "pending", LATE - timedelta(microseconds=1))] == ["older", "newer"]
    assert [*await listed(database, "open", LATE)] == ["failed", "lost"]
    assert await listed(database, "pending", LATE) == {}
    assert await listed(database, "expired", LATE) == {"older": "expired", "newer": "expired"}
    assert (await listed(database, None, LATE))["newer"] == "expired"
