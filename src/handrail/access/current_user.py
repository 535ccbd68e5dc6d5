"""The user of this machine, as the operating system names them."""

import getpass


def system_user() -> str | None:
    """The login name of whoever runs this process, or None if the system does not know it, as in some containers."""
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):
        return None
