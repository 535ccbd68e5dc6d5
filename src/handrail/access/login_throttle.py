"""Throttling of password guesses: how long to wait after a number of failed logins. Pure functions."""

from datetime import datetime, timedelta
from typing import Literal

Subject = Literal["name", "address"]
"""What failed logins are counted for: the name that was tried, and the address that it was tried from."""

FREE_ATTEMPTS: dict[Subject, int] = {"name": 5, "address": 20}
"""Failures that cost no wait. More for an address, since a whole office may share one."""
LONGEST_WAIT = timedelta(minutes=15)
"""Waits are bounded, so that an attacker cannot lock a user out for good."""
FORGET_AFTER = timedelta(days=1)
"""After this long without a failure, counting starts again."""


def next_attempt_at(subject: Subject, failures: int, last: datetime) -> datetime:
    """When the next attempt is allowed: at once after the first few failures, then after 1 s, 2 s, 4 s and so on.

    Args:
        subject: What the failures were counted for.
        failures: The number of failures.
        last: The time of the last one.
    """
    excess = failures - FREE_ATTEMPTS[subject]
    return last if excess < 0 else last + min(timedelta(seconds=1) * 2 ** min(excess, 20), LONGEST_WAIT)


def count_failure(failures: int, last: datetime, now: datetime) -> int:
    """The number of failures after one more.

    Args:
        failures: The number of failures before.
        last: The time of the last of them.
        now: The time of the new one.
    """
    return 1 if now - last >= FORGET_AFTER else failures + 1
