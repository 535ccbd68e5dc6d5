"""Decides and executes actions: STORE EFFECTS STOP_AT. An effect is a line in EFFECTS with the approval's id.

Each line on standard input names an approval. For each, this program prints whether its decision and its execution were
the ones that counted. At STOP_AT (`begun`, `effected` or `completed`) it prints that word and waits to be killed; with
`nowhere` it continues to the end of its input.
"""

import os
import sys
import threading

from handrail.kernel.clock import SystemClock
from handrail.kernel.db.database import Database
from handrail.review.approvals.errors import AlreadyDecided, StillExecuting
from handrail.review.approvals.model import Execute
from handrail.review.approvals.queries import load_approval
from handrail.review.approvals.store import begin, complete, decide

store, effects, stop_at = sys.argv[1:]
database = Database.open(store)
clock = SystemClock()


def print_line(line: str) -> None:
    print(line, flush=True)  # noqa: T201


def reach(point: str) -> None:
    if point == stop_at:
        print_line(point)
        threading.Event().wait()


def approve(approval_id: str) -> bool:
    try:
        database.write_now(decide(approval_id, "approved", "ann", {"lead": ["ann"]}, None, clock.now()))
    except AlreadyDecided:
        return False
    return True


def execute(approval_id: str) -> bool:
    digest = database.read_now(load_approval(approval_id, clock.now())).digest
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


print_line("ready")
for line in sys.stdin:
    print_line(f"{approve(line.strip())} {execute(line.strip())}")
database.close()
