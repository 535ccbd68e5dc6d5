"""How the server is reached, and by whom: alone on this machine without a login, from anywhere else only with one."""

from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from handrail.kernel.errors import BadInput

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, kw_only=True)
class Door:
    """`is_open`: whoever reaches the server is its operator, and needs no login. `hosts` are the names that a request
    may call the server by, in lower case without a port; None where any will do. `secure`: it is reached over TLS.
    """

    is_open: bool
    hosts: frozenset[str] | None
    secure: bool

    def answers(self, host: str) -> bool:
        """Whether a request with this Host header is meant for this server.

        A page elsewhere can have its own name resolve to 127.0.0.1 (DNS rebinding); its requests carry that name.
        """
        return self.hosts is None or host_name(host) in self.hosts


def door_at(address: str, public_url: str | None) -> Door:
    """The door of a server that listens at `address`, and that browsers reach at `public_url` where a proxy is before
    it. Raises BadInput.

    A proxy's requests come from this machine, too: with a `public_url` nobody comes in without a login or a key.
    """
    if public_url is not None:
        parts = urlsplit(public_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/") or parts.query:
            raise BadInput(f"--public-url {public_url!r} is not an address such as https://handrail.example.com")
        return Door(is_open=False, hosts=frozenset({parts.hostname.lower()}), secure=parts.scheme == "https")
    if is_local(address):
        return Door(is_open=True, hosts=_LOCAL_NAMES, secure=False)
    return Door(is_open=False, hosts=None, secure=False)


def is_local(address: str) -> bool:
    """Whether only this machine reaches `address`."""
    if address == "localhost":
        return True
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def host_name(host: str) -> str:
    """A Host header, or an origin's network location, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
