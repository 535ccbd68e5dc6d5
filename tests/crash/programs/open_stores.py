"""Opens each store named on standard input, and prints `open` or the error."""

import sys

from handrail.kernel.db.database import Database
from handrail.kernel.errors import HandrailError

print("ready", flush=True)  # noqa: T201
for line in sys.stdin:
    try:
        Database.open(line.strip()).close()
    except HandrailError as error:
        print(repr(error), flush=True)  # noqa: T201
    else:
        print("open", flush=True)  # noqa: T201
