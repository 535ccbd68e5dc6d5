"""Eval sets: frozen inputs with what good looks like, how an agent does on them, and the gate it has to pass."""

from .appending import append_case
from .baselines import Baseline, GateView, list_baselines, list_gates, newest_baseline
from .gating import Gated, NoBaseline, gate, promote, set_baseline
from .growing import Grown, Judged, add_case, case_from_run
from .responses import NotRecorded, Recorded, Responses
from .rule import MARGIN, GateVerdict, plain_rule
from .running import EvalReport, Running, evaluating, frozen_set, run_evals
from .scoring import Score, Seen, Verdict, exact, score, verdict_of
from .sets import Case, Difference, EvalSet, Frozen, check_frozen, compare, freeze, load_set, lock_path
from .store import EvalRunView, Trial, list_eval_runs, load_eval_run
from .tasks import TENANT, CallableTask, SpendingLimit, Task

__all__ = [
    "MARGIN",
    "TENANT",
    "Baseline",
    "CallableTask",
    "Case",
    "Difference",
    "EvalReport",
    "EvalRunView",
    "EvalSet",
    "Frozen",
    "GateVerdict",
    "GateView",
    "Gated",
    "Grown",
    "Judged",
    "NoBaseline",
    "NotRecorded",
    "Recorded",
    "Responses",
    "Running",
    "Score",
    "Seen",
    "SpendingLimit",
    "Task",
    "Trial",
    "Verdict",
    "add_case",
    "append_case",
    "case_from_run",
    "check_frozen",
    "compare",
    "evaluating",
    "exact",
    "freeze",
    "frozen_set",
    "gate",
    "list_baselines",
    "list_eval_runs",
    "list_gates",
    "load_eval_run",
    "load_set",
    "lock_path",
    "newest_baseline",
    "plain_rule",
    "promote",
    "run_evals",
    "score",
    "set_baseline",
    "verdict_of",
]
