"""Chromium for the browser tests: Debian's own, or Chrome, as the machine has it."""

import shutil
import subprocess
import sys

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage")


def find_chromium() -> str | None:
    """The browser's program, where there is one."""
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


def install() -> None:
    """Installs Debian's package where no browser is found; needs the rights to. Raises CalledProcessError."""
    if find_chromium():
        return
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"],
    ):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    install()
    sys.stdout.write(f"{find_chromium()}\n")
