"""Who may reach the server, by the address it is bound to: without a login only from this machine."""

from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from handrail.kernel.errors import BadInput

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, kw_only=True)
class BindPolicy:
    """What follows from the server's address. No field has a default, so that nothing is open by omission.

    Attributes:
        requires_auth: Whether callers need a login or an API key; otherwise every caller is the operator.
        allowed_hosts: The host names that requests may address, in lower case without a port; None for any.
        secure: Whether browsers reach the server over TLS.
    """

    requires_auth: bool
    allowed_hosts: frozenset[str] | None
    secure: bool

    @property
    def behind_proxy(self) -> bool:
        """Whether requests come through a proxy that the operator named, whose forwarding headers are trusted."""
        return self.requires_auth and self.allowed_hosts is not None

    def allows_host(self, host: str) -> bool:
        """Whether a request with this Host header is meant for this server."""
        # DNS rebinding: a foreign page can make its own name resolve to 127.0.0.1 and so reach a local server from the
        # victim's browser. Such requests still carry the foreign name.
        return self.allowed_hosts is None or strip_port(host) in self.allowed_hosts


def bind_policy_for(address: str, public_url: str | None) -> BindPolicy:
    """The policy of a server.

    Args:
        address: The address it is bound to.
        public_url: The URL at which browsers reach it through a proxy, if there is one.

    Raises:
        BadInput: The public URL is not the root of an http or https origin.
    """
    if public_url is not None:
        parts = urlsplit(public_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/") or parts.query:
            raise BadInput(f"--public-url {public_url!r} is not a URL such as https://handrail.example.com")
        # A proxy's requests come from this machine too, so the loopback address proves nothing here.
        return BindPolicy(
            requires_auth=True,
            allowed_hosts=frozenset({parts.hostname.lower()}),
            secure=parts.scheme == "https",
        )
    if is_local(address):
        return BindPolicy(requires_auth=False, allowed_hosts=_LOCAL_NAMES, secure=False)
    return BindPolicy(requires_auth=True, allowed_hosts=None, secure=False)


def is_local(address: str) -> bool:
    """Whether an address can be reached from this machine only."""
    if address == "localhost":
        return True
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def strip_port(host: str) -> str:
    """The host name, in lower case, of a Host header or of an origin's authority; empty if it is malformed."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
