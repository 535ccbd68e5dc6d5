"""Finds or downloads the built-in model's weights; a file whose SHA-256 is not the official release's is never used.

The download itself, with its cache, resuming and progress bar, is huggingface_hub's.
"""

import hashlib
import json
import os
from pathlib import Path

from handrail.config.settings import Settings
from handrail.kernel.errors import BadSettings, MissingExtra
from handrail.models.errors import WeightsUnavailable, WrongWeights

from .catalog import Weights

_REVISION = "main"  # not pinned: the SHA-256 decides which file is used


def weights_directory(settings: Settings) -> Path:
    """The directory for weights files that reached this machine by other means than the hub.

    Args:
        settings: `cache` is its parent; without it `handrail` in XDG_CACHE_HOME, or in ~/.cache.
    """
    root = settings.cache or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "handrail"
    return root / "models"


def find_weights(weights: Weights, settings: Settings) -> Path | None:
    """The official weights on this machine, if they are there. Nothing is downloaded.

    Args:
        weights: The weights to find.
        settings: `weights` names the file; otherwise `weights_directory` and the hub's cache are searched.

    Raises:
        BadSettings: The `weights` setting does not name a file.
        WrongWeights: The file that the `weights` setting names is not the official release.
    """
    if path := settings.weights:
        if not path.is_file():
            raise BadSettings(f"HANDRAIL_WEIGHTS names {path}, which is not a file")
        if not _is_official(weights, path, settings):
            raise _wrong(weights, path, "HANDRAIL_WEIGHTS names it: name another file")
        return path
    path = weights_directory(settings) / weights.file_name
    return path if _is_official(weights, path, settings) else _in_hub_cache(weights, settings)


def download_weights(weights: Weights, settings: Settings) -> Path:
    """Downloads the weights from the official repository on the Hugging Face hub, with a progress bar on stderr.

    Args:
        weights: The weights to download.
        settings: They are stored in `huggingface` in `cache`; without that setting, in the hub's own cache.

    Returns:
        The path of the downloaded file.

    Raises:
        WeightsUnavailable: The hub cannot be reached or does not have the file.
        WrongWeights: The file that the hub served is not the official release; it was deleted.
        BadSettings: The cache is not writable.
        MissingExtra: huggingface_hub is not installed.
    """
    try:
        import huggingface_hub as hub  # takes 0.2 s
        from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]
    except ImportError as error:
        raise MissingExtra("The built-in model", "local") from error
    try:
        # Without this request, which is not retried, a machine without network would wait for half a minute.
        metadata = hub.get_hf_file_metadata(hub.hf_hub_url(weights.repository, weights.file_name, revision=_REVISION))
        if metadata.size != weights.size:
            raise _unavailable(weights, f"it offers {metadata.size:,} bytes where {weights.size:,} are expected")
        downloaded = hub.hf_hub_download(
            weights.repository, weights.file_name, revision=_REVISION, cache_dir=_hub_cache(settings)
        )
    except (HTTPError, OSError, RuntimeError, getattr(hub.errors, "XetDownloadError", RuntimeError)) as error:
        # The hub's own errors are OSErrors too, but without the operating system's number.
        if isinstance(error, OSError) and error.errno and not isinstance(error, ConnectionError):
            raise _unwritable(settings, error) from error
        raise _unavailable(weights, str(error)) from error
    path = Path(downloaded)
    if not _is_official(weights, path, settings):
        wrong = _wrong(weights, path, "it was deleted")
        path.resolve().unlink()  # the cache's link points to the bytes
        raise wrong
    return path


def _in_hub_cache(weights: Weights, settings: Settings) -> Path | None:
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    cached = try_to_load_from_cache(
        weights.repository, weights.file_name, revision=_REVISION, cache_dir=_hub_cache(settings)
    )
    return Path(cached) if isinstance(cached, str) and _is_official(weights, Path(cached), settings) else None


def _hub_cache(settings: Settings) -> Path | None:
    return settings.cache and settings.cache / "huggingface"


def _is_official(weights: Weights, path: Path, settings: Settings) -> bool:
    """Whether a file is the official release. It is hashed again only if its size or modification time changes."""
    if not path.is_file() or path.stat().st_size != weights.size:
        return False
    record, identity = weights_directory(settings) / f"{weights.file_name}.checked.json", _identity(weights, path)
    try:
        if json.loads(record.read_text()) == identity:
            return True
    except (OSError, ValueError):
        pass
    if _sha256(path) != weights.sha256:
        return False
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(identity))
    except OSError as error:
        raise _unwritable(settings, error) from error
    return True


def _identity(weights: Weights, path: Path) -> dict[str, object]:
    status = path.stat()
    return {
        "path": str(path.resolve()),
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "sha256": weights.sha256,
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unwritable(settings: Settings, error: OSError) -> BadSettings:
    return BadSettings(
        f"The weights cannot be stored in {error.filename or settings.cache or 'the cache'} "
        f"({error.strerror or error}): set HANDRAIL_CACHE to a directory that you can write to and that has room"
    )


def _unavailable(weights: Weights, reason: str) -> WeightsUnavailable:
    return WeightsUnavailable(
        f"The weights of {weights.model} could not be downloaded from {weights.repository} on the Hugging Face hub: "
        f"{' '.join(reason.split())}. Set HANDRAIL_WEIGHTS to a copy of {weights.file_name}, or choose another model "
        "with HANDRAIL_MODEL"
    )


def _wrong(weights: Weights, path: Path, advice: str) -> WrongWeights:
    return WrongWeights(
        f"{path} is not the official {weights.file_name}: its SHA-256 is {_sha256(path)} where {weights.sha256} is "
        f"expected; {advice}"
    )
