"""One change of a set at a time: who reads a set to write it anew would else undo what was written in between."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from handrail.kernel.errors import BadInput

WAIT_SECONDS = 10.0
"""How long a change waits for those before it, each of which takes milliseconds."""
_POLL_SECONDS = 0.01

_mine: ContextVar[frozenset[Path]] = ContextVar("mine", default=frozenset())


@contextmanager
def changing(path: Path) -> Iterator[None]:
    """Keeps every other thread and process from changing the set at `path` during the block, which may hold another.

    Raises BadInput where others are still at it after 10 seconds, or where nothing can be locked.
    """
    from filelock import FileLock, Timeout  # 20 ms that only a change of a set needs

    whole = path.resolve()
    if whole in _mine.get():
        yield
        return
    file = _lock_file(whole)
    # Any user of the machine may change the set, so any may open the file.
    lock = FileLock(file, timeout=WAIT_SECONDS, poll_interval=_POLL_SECONDS, mode=0o666)
    try:
        lock.acquire()
    except Timeout as error:
        raise BadInput(
            f"{path}: another process has been changing the set for {WAIT_SECONDS:g} seconds; try again when it is done"
        ) from error
    except OSError as error:
        raise BadInput(f"{path}: {file} cannot be locked ({error.strerror}); let TMPDIR name another folder") from error
    held = _mine.set(_mine.get() | {whole})
    try:
        yield
    finally:
        _mine.reset(held)
        lock.release()


def _lock_file(whole: Path) -> Path:
    """Not beside the set, where it would be committed with it: a lock cannot be removed after use, since who waits for
    it has it open already. Sets share 256 files, so that no more than that are ever left."""
    share = hashlib.sha256(str(whole).encode("utf-8", "surrogateescape")).hexdigest()[:2]
    return Path(tempfile.gettempdir()) / f"handrail-sets-{share}.lock"
