"""The browser's and the programs' door: server-rendered pages and an API, over one runtime."""

from .app import create_app
from .door import Door, door_at
from .serving import listening, nobody_comes_in, serve

__all__ = ["Door", "create_app", "door_at", "listening", "nobody_comes_in", "serve"]
