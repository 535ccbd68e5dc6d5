"""Brings a built-in model's weights to this machine once, and lets no byte through that the official release lacks."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from handrail.config.settings import Settings
from handrail.kernel.errors import BadSettings, HandrailError

from .catalog import Weights
from .download import Hub, NoRoom, OnProgress, Progress, Source, SourceFailed


class ModelUnavailable(HandrailError):
    """No model can be had here and now; go on without one, or do what the message says."""

    code: ClassVar[str] = "model_unavailable"


class WrongWeights(ModelUnavailable):
    """The bytes are not those of the official release; do not use them, and name another file or source."""

    code: ClassVar[str] = "wrong_weights"


class WeightsUnavailable(ModelUnavailable):
    """No source could give the weights; do without the built-in model, or get the file in another way."""

    code: ClassVar[str] = "weights_unavailable"


def cache_dir(settings: Settings) -> Path:
    """Where weights are kept: the `cache` setting, else `handrail` below XDG_CACHE_HOME, else below ~/.cache."""
    root = settings.cache or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "handrail"
    return root / "models"


def find_weights(weights: Weights, settings: Settings) -> Path | None:
    """The checked weights on this machine, or None; downloads nothing.

    Raises BadSettings if the `weights` setting names no file, and WrongWeights if it is another one.
    """
    cache = cache_dir(settings)
    if settings.weights:
        return _named(weights, settings.weights, cache)
    path = cache / weights.file_name
    return path if _is_right(weights, path, cache) else None


def fetch_weights(
    weights: Weights,
    settings: Settings,
    sources: Sequence[Source] = (Hub(),),
    on_progress: OnProgress = lambda _: None,
) -> Path:
    """The checked weights on this machine, downloaded from the first source that can give them if need be.

    Blocks until they are here; a second process waits for the first. What arrived before a failure is kept, and the
    next call goes on from there. `on_progress` hears of bytes after each block.

    Raises BadSettings, WrongWeights, NoRoom, and WeightsUnavailable with every source's reason.
    """
    if here := find_weights(weights, settings):
        return here
    cache = cache_dir(settings)
    from filelock import FileLock  # 20 ms that only a download needs

    with _writable(cache), FileLock(cache / f"{weights.file_name}.lock"):
        if here := find_weights(weights, settings):
            return here
        reasons = []
        for source in sources:
            try:
                return _fetch_from(source, weights, cache, on_progress)
            except SourceFailed as failure:
                reasons.append(f"{source.name}: {failure}")
    raise WeightsUnavailable(
        f"The weights of {weights.model} could not be downloaded. {'; '.join(reasons) or 'No source was given'}. "
        f"Set HANDRAIL_WEIGHTS to a copy of {weights.file_name}, or choose another model with HANDRAIL_MODEL"
    )


def _fetch_from(source: Source, weights: Weights, cache: Path, on_progress: OnProgress) -> Path:
    part = cache / f"{weights.file_name}.{source.name}.part"
    present = part.stat().st_size if part.exists() else 0
    _require_room(cache, weights.size - present)
    on_progress(Progress(present, weights.size))
    source.fetch(weights, part, on_progress)
    if (digest := _sha256(part)) != weights.sha256:
        part.unlink()
        raise WrongWeights(_mismatch(f"What {source.name!r} gave", weights, digest) + ", and was deleted")
    path = part.replace(cache / weights.file_name)
    _mark(weights, path, cache)
    for leftover in cache.glob(f"{weights.file_name}.*.part*"):
        leftover.unlink()
    return path


def _named(weights: Weights, path: Path, cache: Path) -> Path:
    if not path.is_file():
        raise BadSettings(f"HANDRAIL_WEIGHTS names {path}, which is not a file")
    if not _is_right(weights, path, cache):
        raise WrongWeights(_mismatch(f"{path}, named by HANDRAIL_WEIGHTS,", weights, _sha256(path)))
    return path


def _is_right(weights: Weights, path: Path, cache: Path) -> bool:
    """Whether the file has the release's bytes; hashed once, and again whenever its size or time of change differs."""
    if not path.is_file() or path.stat().st_size != weights.size:
        return False
    if _read_mark(weights, cache) == _mark_of(weights, path):
        return True
    if _sha256(path) != weights.sha256:
        return False
    _mark(weights, path, cache)
    return True


def _mark_of(weights: Weights, path: Path) -> dict[str, object]:
    status = path.stat()
    return {
        "path": str(path.resolve()),
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "sha256": weights.sha256,
    }


def _mark_file(weights: Weights, cache: Path) -> Path:
    return cache / f"{weights.file_name}.checked.json"


def _read_mark(weights: Weights, cache: Path) -> object:
    try:
        return json.loads(_mark_file(weights, cache).read_text())
    except (OSError, ValueError):
        return None


def _mark(weights: Weights, path: Path, cache: Path) -> None:
    with _writable(cache):
        _mark_file(weights, cache).write_text(json.dumps(_mark_of(weights, path)))


@contextmanager
def _writable(cache: Path) -> Iterator[None]:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise BadSettings(
            f"Cannot write to {cache} ({error.strerror}): set HANDRAIL_CACHE to a folder of yours"
        ) from error


def _require_room(cache: Path, needed: int) -> None:
    free = shutil.disk_usage(cache).free
    if free < needed:
        raise NoRoom(f"{cache} has {free:,} bytes free where {needed:,} are needed: make room, or set HANDRAIL_CACHE")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _mismatch(what: str, weights: Weights, digest: str) -> str:
    return f"{what} is not the official {weights.file_name}: its SHA-256 is {digest} where {weights.sha256} is expected"
