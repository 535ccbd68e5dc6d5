"""Weights: only the official bytes are used, from any source."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from handrail.config.settings import Settings
from handrail.kernel.errors import BadSettings
from handrail.models.errors import WeightsUnavailable, WrongWeights
from handrail.models.local.catalog import Weights
from handrail.models.local.weights import download_weights, find_weights, weights_directory
from tests.models.loopback import FileServer

BODY = bytes(range(256)) * 40
WEIGHTS = Weights("tiny", "acme/tiny", "tiny.gguf", len(BODY), hashlib.sha256(BODY).hexdigest())
FILE = "/acme/tiny/resolve/main/tiny.gguf"
DOWNLOAD = """
import sys
from pathlib import Path
from handrail.config.settings import Settings
from handrail.models.local.catalog import Weights
from handrail.models.local.weights import download_weights

cache, sha256, size = sys.argv[1:]
print(download_weights(Weights("tiny", "acme/tiny", "tiny.gguf", int(size), sha256), Settings(cache=Path(cache))))
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(base=tmp_path, cache=tmp_path / "cache")


@pytest.fixture
def hub(file_server: FileServer, monkeypatch: pytest.MonkeyPatch) -> FileServer:
    """A loopback server in place of the Hugging Face hub."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", file_server.url)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        f"{file_server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
    )
    file_server.body = BODY
    return file_server


def cached_bytes(settings: Settings) -> list[bytes]:
    """The contents of all blobs in the hub's cache."""
    assert settings.cache is not None
    return [path.read_bytes() for path in settings.cache.glob("huggingface/models--*/blobs/*")]


def test_download(settings: Settings, hub: FileServer) -> None:
    """A download is stored in the hub's cache, found there, and not repeated."""
    assert find_weights(WEIGHTS, settings) is None
    path = download_weights(WEIGHTS, settings)
    assert path.read_bytes() == BODY
    assert find_weights(WEIGHTS, settings) == path
    assert download_weights(WEIGHTS, settings) == path
    assert hub.requests.count(FILE) == 1


def test_download_from_another_hub(settings: Settings, file_server: FileServer) -> None:
    """HF_ENDPOINT names another hub, whose bytes are checked like the official one's."""
    file_server.body = BODY
    command = [sys.executable, "-c", DOWNLOAD, str(settings.cache), WEIGHTS.sha256, str(WEIGHTS.size)]
    env = {**os.environ, "HF_ENDPOINT": file_server.url}
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert Path(result.stdout.strip()).read_bytes() == BODY


def test_no_room(settings: Settings, file_server: FileServer) -> None:
    """A disk without room for the file is a setting to change, and the part that fitted is not used."""
    file_server.body = BODY
    limited = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (4_096, 4_096))\n{DOWNLOAD}"
    command = [sys.executable, "-c", limited, str(settings.cache), WEIGHTS.sha256, str(WEIGHTS.size)]
    environment = {**os.environ, "HF_ENDPOINT": file_server.url}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert "set HANDRAIL_CACHE to a directory that you can write to and that has room" in done.stderr
    assert find_weights(WEIGHTS, settings) is None


def test_wrong_bytes(settings: Settings, hub: FileServer) -> None:
    """Bytes of the right number but another hash are refused, and no file is left."""
    hub.body = BODY[:-1] + b"!"
    with pytest.raises(
        WrongWeights, match=r"is not the official tiny\.gguf: its SHA-256 is .* expected; it was deleted"
    ):
        download_weights(WEIGHTS, settings)
    assert cached_bytes(settings) == []
    assert find_weights(WEIGHTS, settings) is None
    hub.body = BODY
    assert download_weights(WEIGHTS, settings).read_bytes() == BODY


def test_file_not_on_the_hub(settings: Settings, hub: FileServer) -> None:
    """A hub that lacks the file is named with its response and advice."""
    hub.status = 404
    with pytest.raises(WeightsUnavailable, match=r"acme/tiny on the Hugging Face hub: .*404.* Set HANDRAIL_WEIGHTS"):
        download_weights(WEIGHTS, settings)


def test_no_network(settings: Settings, hub: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network the error advises a local file or another model."""
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}"
    )
    with pytest.raises(WeightsUnavailable, match=r"Set HANDRAIL_WEIGHTS to a copy of tiny\.gguf, or .* HANDRAIL_MODEL"):
        download_weights(WEIGHTS, settings)
    assert FILE not in hub.requests


def test_login_page(settings: Settings, hub: FileServer) -> None:
    """A login page instead of the file is recognised by its length before it is downloaded."""
    hub.body = b"<html>please log in</html>"
    with pytest.raises(WeightsUnavailable, match="offers 26 bytes where 10,240 are expected"):
        download_weights(WEIGHTS, settings)
    assert FILE not in hub.requests
    assert cached_bytes(settings) == []


def test_cache_that_is_a_file(tmp_path: Path, hub: FileServer) -> None:
    """A cache that cannot be written to is named, with the setting that moves it."""
    (tmp_path / "cache").write_text("")
    with pytest.raises(BadSettings, match="set HANDRAIL_CACHE"):
        download_weights(WEIGHTS, Settings(base=tmp_path, cache=tmp_path / "cache"))
    assert FILE not in hub.requests


def test_named_file(tmp_path: Path) -> None:
    """A file that the settings name is used in place if its bytes are right, and refused otherwise."""
    file = tmp_path / "mine.gguf"
    settings = Settings(base=tmp_path, cache=tmp_path / "cache", weights=file)
    with pytest.raises(BadSettings, match="which is not a file"):
        find_weights(WEIGHTS, settings)
    file.write_bytes(BODY[::-1])
    with pytest.raises(WrongWeights, match=r"mine\.gguf is not the official .* HANDRAIL_WEIGHTS names it"):
        find_weights(WEIGHTS, settings)
    assert file.exists()
    file.write_bytes(BODY)
    assert find_weights(WEIGHTS, settings) == file


def test_copied_file(settings: Settings) -> None:
    """A file that was copied to the weights directory is found, if its bytes are right."""
    path = weights_directory(settings) / "tiny.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(BODY[::-1])
    assert find_weights(WEIGHTS, settings) is None
    path.write_bytes(BODY)
    assert find_weights(WEIGHTS, settings) == path


def test_changed_after_the_check(settings: Settings) -> None:
    """A file that changed since it was checked is hashed again, and not used if its bytes are wrong."""
    path = weights_directory(settings) / "tiny.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(BODY)
    assert find_weights(WEIGHTS, settings) == path
    path.write_bytes(BODY[::-1])
    os.utime(path, ns=(0, 0))
    assert find_weights(WEIGHTS, settings) is None
