"""Files replaced in one step, so that no reader and no crash finds half of one."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def replace_file(path: Path, content: bytes, *, mode: int = 0o644, check: Callable[[Path], None] | None = None) -> None:
    """Writes `content` beside `path`, flushes it to disk, and renames it into place.

    Args:
        path: The file to replace or create; its directory has to exist.
        content: All of the new content.
        mode: The permissions of the new file.
        check: Called with the temporary file before it replaces the old one; what it raises leaves the old one as it
            was.

    Raises:
        OSError: Where the file cannot be written; the old one is as it was.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if check is not None:
            check(temporary)
        temporary.chmod(mode)
        temporary.replace(path)
    except BaseException:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise
