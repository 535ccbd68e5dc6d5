"""Places holds until one is refused, in several processes with several concurrent lanes each: STORE LIMITS.

LIMITS is JSON: `processes`, `lanes`, `price` and `tenant_month` in nano-dollars, and `now`. Every second hold is
settled, at the amount held. Prints the process ids, then each hold's id once it is on disk.
"""

import asyncio
import json
import os
import sys
from datetime import datetime
from itertools import count
from zoneinfo import ZoneInfo

from handrail.ceilings.decision import HoldRequest
from handrail.ceilings.ledger import Hold, hold, settle
from handrail.ceilings.limits import Limits
from handrail.kernel.db.database import Database
from handrail.kernel.money import NanoUsd

store, limits_json = sys.argv[1:]
options = json.loads(limits_json)
limits = Limits(10**9, 10**9, None, NanoUsd(options["tenant_month"]), ZoneInfo("UTC"))
now = datetime.fromisoformat(options["now"])


def price(_input: int, _output: int) -> NanoUsd:
    return NanoUsd(options["price"])


async def spend(database: Database, name: str, lane: int) -> None:
    for number in count():
        request = HoldRequest(f"{name}-{lane}", f"u-{lane}", "acme", 10, 20, price)
        hold_id = f"{name}-{lane}-{number}"
        [held] = await database.write(hold(hold_id, request, limits, now))
        if not isinstance(held, Hold):
            return
        os.write(1, f"{hold_id}\n".encode())
        if number % 2:
            await database.write(settle(held, held.amount))


async def spend_on_all_lanes(name: str) -> None:
    database = Database.open(store)
    await asyncio.gather(*(spend(database, name, lane) for lane in range(options["lanes"])))
    database.close()


# Forked after all imports and before any store is opened, so that all start at the same time with their own connection.
children = []
go, begin = os.pipe()
for n in range(options["processes"]):
    child = os.fork()
    if child == 0:
        os.close(begin)
        os.read(go, 1)
        asyncio.run(spend_on_all_lanes(f"p{n}"))
        os._exit(0)
    children.append(child)
os.write(1, f"{' '.join(map(str, children))}\n".encode())
os.close(begin)
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
