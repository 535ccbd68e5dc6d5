"""How long somebody who guesses passwords has to wait: a rule over how often and when a login failed last."""

from datetime import datetime, timedelta
from typing import Literal

Subject = Literal["name", "address"]

FREE: dict[Subject, int] = {"name": 5, "address": 20}
"""Failures that cost no wait. An address may be a whole office's."""
LONGEST_WAIT = timedelta(minutes=15)
"""Bounded, so that guessing cannot lock a person out for good."""
FORGOTTEN = timedelta(days=1)
"""After so long without a failure, the count begins anew."""


def retry_at(subject: Subject, failures: int, last: datetime) -> datetime:
    """From when on another try is heard: at once for the first few, then after 1 s, 2 s, 4 s and so on."""
    beyond = failures - FREE[subject]
    return last if beyond < 0 else last + min(timedelta(seconds=1) * 2 ** min(beyond, 20), LONGEST_WAIT)


def counted(failures: int, last: datetime, now: datetime) -> int:
    """How many failures count still, this one included."""
    return 1 if now - last >= FORGOTTEN else failures + 1
