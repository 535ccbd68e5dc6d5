"""The worker: runs background jobs, in any process, and again after a crash.

Only the worker, or an explicit `await agent.resume(run_id)`, executes an approved action.
"""

from .attempt import LEASE, JobResult
from .handlers import FindAgent
from .loop import run_due_jobs, run_worker
from .next_step import MAX_ATTEMPTS
from .stop_signal import StopSignal

__all__ = ["LEASE", "MAX_ATTEMPTS", "FindAgent", "JobResult", "StopSignal", "run_due_jobs", "run_worker"]
