"""Decides and executes approved actions: STORE EFFECTS PLACE. An effect is a line, the approval's id, in EFFECTS.

Each line on standard input names an approval; for it this program prints whether its decision and its execution were
the ones that counted. At PLACE (`begun`, `effected` or `completed`) it prints that instead and waits to be killed;
where PLACE is `nowhere` it goes on to the end of its input.
"""

import os
import sys
import threading

from handrail.kernel.clock import SystemClock
from handrail.kernel.db.database import Database
from handrail.review.approvals.errors import AlreadyDecided, StillExecuting
from handrail.review.approvals.model import Execute
from handrail.review.approvals.store import begin, complete, decide, load_approval

store, effects, place = sys.argv[1:]
database = Database.open(store)
clock = SystemClock()


def tell(line: str) -> None:
    print(line, flush=True)  # noqa: T201


def reach(here: str) -> None:
    if here == place:
        tell(here)
        threading.Event().wait()


def approve(approval_id: str) -> bool:
    try:
        database.write_now(decide(approval_id, "approved", "ann", {"lead": ["ann"]}, None, clock.now()))
    except AlreadyDecided:
        return False
    return True


def execute(approval_id: str) -> bool:
    digest = database.read_now(lambda conn: load_approval(conn, approval_id)).digest
    try:
        [begun] = database.write_now(begin(approval_id, digest, clock.now()))
    except StillExecuting:
        return False
    if begun != Execute():
        return False
    reach("begun")
    file = os.open(effects, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, f"{approval_id}\n".encode())
    os.close(file)
    reach("effected")
    database.write_now(complete(approval_id, {"paid": True}))
    reach("completed")
    return True


tell("ready")
for line in sys.stdin:
    tell(f"{approve(line.strip())} {execute(line.strip())}")
database.close()
