"""Writes as fast as it can until it is killed: STORE ROUND. Prints each key once its write has been acknowledged."""

import asyncio
import os
import sys

from handrail.kernel.clock import SystemClock
from handrail.kernel.db.database import Database
from handrail.kernel.db.jobs import enqueue

store, round_ = sys.argv[1:]
database = Database.open(store)
now = SystemClock().now()


async def write(lane: int) -> None:
    number = 0
    while True:
        key = f"{round_}-{lane:02}-{number:06}"
        await database.write(enqueue("crash", key, {"padding": "x" * 200}, now))
        os.write(1, f"{key}\n".encode())
        number += 1


async def main() -> None:
    await asyncio.gather(*(write(lane) for lane in range(16)))


asyncio.run(main())
