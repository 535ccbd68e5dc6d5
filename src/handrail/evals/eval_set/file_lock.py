"""One edit of an eval set at a time, since two processes that read, change and write it would undo each other."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from handrail.kernel.errors import BadInput

WAIT_SECONDS = 10.0
"""How long an edit waits for earlier ones, each of which takes milliseconds."""
_POLL_SECONDS = 0.01

_locked: ContextVar[frozenset[Path]] = ContextVar("locked", default=frozenset())


@contextmanager
def exclusive_edit(path: Path) -> Iterator[None]:
    """Keeps every other thread and process from editing the eval set at `path` during the block; may be nested.

    Raises:
        BadInput: Others are still editing it after 10 seconds, or the lock file cannot be opened.
    """
    from filelock import FileLock, Timeout  # imported here, since it takes 20 ms that only edits need

    resolved = path.resolve()
    if resolved in _locked.get():
        yield
        return
    file = _lock_file(resolved)
    # Any user of the machine may edit the eval set, so any may open the file.
    lock = FileLock(file, timeout=WAIT_SECONDS, poll_interval=_POLL_SECONDS, mode=0o666)
    try:
        lock.acquire()
    except Timeout as error:
        raise BadInput(
            f"{path}: another process has been editing the eval set for {WAIT_SECONDS:g} seconds; try again later"
        ) from error
    except OSError as error:
        raise BadInput(f"{path}: {file} cannot be locked ({error.strerror}); set TMPDIR to another folder") from error
    token = _locked.set(_locked.get() | {resolved})
    try:
        yield
    finally:
        _locked.reset(token)
        lock.release()


def _lock_file(path: Path) -> Path:
    # In the temporary folder: a lock file cannot be removed after use, since others may be waiting on it, and next to
    # the eval set it would be committed. All eval sets share 256 files, so at most that many are left behind.
    bucket = hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()[:2]
    return Path(tempfile.gettempdir()) / f"handrail-sets-{bucket}.lock"
