"""Eval sets: frozen inputs with what good looks like, and how an agent does on them."""

from .runner import TENANT, EvalReport, frozen_set, run_evals
from .scoring import Score, Verdict, exact, score
from .sets import Case, Difference, EvalSet, Frozen, check_frozen, compare, freeze, load_set, lock_path
from .store import EvalRunView, Trial, list_eval_runs, load_eval_run

__all__ = [
    "TENANT",
    "Case",
    "Difference",
    "EvalReport",
    "EvalRunView",
    "EvalSet",
    "Frozen",
    "Score",
    "Trial",
    "Verdict",
    "check_frozen",
    "compare",
    "exact",
    "freeze",
    "frozen_set",
    "list_eval_runs",
    "load_eval_run",
    "load_set",
    "lock_path",
    "run_evals",
    "score",
]
