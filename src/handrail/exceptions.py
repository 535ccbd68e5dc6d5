"""The public errors as one tree. Each is named for what its caller does next, and `handrail` exports all of them.

`handrail.evals` has those that only evals raise: `SpendingLimit`, `ScorerFailed` and `JudgeFailed`.

    HandrailError
    ├── BadInput                change what you passed in
    ├── BadSettings             correct handrail.toml or the environment
    ├── NotFound                name something that exists
    ├── MissingExtra            install the extra that it names
    ├── CeilingReached          wait until the ceiling resets, or raise it
    ├── ActionUncertain         check whether the action took place
    ├── InnerActionBlocked      give the irreversible tool to the run's own agent
    ├── RunEnded                wait for the task within the run, or start a run for it
    ├── NotResumable            check the run's state
    ├── ResumeFailed            remove the reason, and resume the run again
    ├── StillExecuting          try again later
    ├── ModelUnavailable        configure a model, or do without one
    │   ├── WeightsUnavailable  get the built-in model's weights in another way
    │   └── WrongWeights        use the official weights
    └── StoreError              the store failed; nothing was written
        ├── StoreBusy           try again
        ├── StoreFull           make room on the disk
        ├── StoreReadOnly       make the file writable, or use another one
        ├── StoreDamaged        restore a backup
        ├── StoreNewer          upgrade Handrail
        ├── StoreOlder          run `handrail db upgrade`
        ├── StoreUnreachable    start the database, or correct its address
        ├── TakenOver           leave the run to the process that resumed it
        └── OutcomeNotStored    repair the store; the error holds the only copy of the outcome

Every error has a stable `code` for programs, and a message for people that says what happened, where, and what to do
about it. Expected failures of models, tools and providers are not exceptions: they are a `Fault` in the run's outcome.
"""

from .kernel.errors import (
    BadInput,
    BadSettings,
    HandrailError,
    MissingExtra,
    NotFound,
    StoreBusy,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreNewer,
    StoreOlder,
    StoreReadOnly,
    StoreUnreachable,
)
from .models.errors import ModelUnavailable, WeightsUnavailable, WrongWeights
from .review.approvals.errors import StillExecuting
from .runs.errors import (
    ActionUncertain,
    CeilingReached,
    InnerActionBlocked,
    NotResumable,
    OutcomeNotStored,
    ResumeFailed,
    RunEnded,
)
from .runs.store.runs import TakenOver

__all__ = [
    "ActionUncertain",
    "BadInput",
    "BadSettings",
    "CeilingReached",
    "HandrailError",
    "InnerActionBlocked",
    "MissingExtra",
    "ModelUnavailable",
    "NotFound",
    "NotResumable",
    "OutcomeNotStored",
    "ResumeFailed",
    "RunEnded",
    "StillExecuting",
    "StoreBusy",
    "StoreDamaged",
    "StoreError",
    "StoreFull",
    "StoreNewer",
    "StoreOlder",
    "StoreReadOnly",
    "StoreUnreachable",
    "TakenOver",
    "WeightsUnavailable",
    "WrongWeights",
]
