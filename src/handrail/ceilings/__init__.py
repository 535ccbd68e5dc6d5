"""Hard ceilings on tokens and money: hold before a request, settle after it, refuse what does not fit."""

from .amount import Amount
from .books import AccountView, HoldView, audit, load_holds, spending
from .bound import input_bound
from .decide import Account, Ask, Price, Refusal, decide
from .ledger import BATCH, LEASE, Hold, charge_expired, hold, settle
from .limits import Limits, Scope, limits_of
from .windows import Window, windows_of

__all__ = [
    "BATCH",
    "LEASE",
    "Account",
    "AccountView",
    "Amount",
    "Ask",
    "Hold",
    "HoldView",
    "Limits",
    "Price",
    "Refusal",
    "Scope",
    "Window",
    "audit",
    "charge_expired",
    "decide",
    "hold",
    "input_bound",
    "limits_of",
    "load_holds",
    "settle",
    "spending",
    "windows_of",
]
