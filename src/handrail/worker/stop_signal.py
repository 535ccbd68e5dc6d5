"""Asks a worker to stop, from a signal handler or another thread."""

import asyncio
from contextlib import suppress


class StopSignal:
    """A request to stop: the first one lets what is running end, a second one does not wait for it."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._requests = 0
        self.draining = asyncio.Event()
        """Set by the first request."""
        self.hurried = asyncio.Event()
        """Set by the second request."""

    def listen(self) -> None:
        """Sets the events in the running event loop from now on, also for earlier requests."""
        self._loop = asyncio.get_running_loop()
        self._set_events()

    def request(self) -> None:
        """Requests the stop."""
        self._requests += 1
        if self._loop is not None:
            # A loop that is closed has nothing left to stop.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._set_events)

    def _set_events(self) -> None:
        for number, event in enumerate((self.draining, self.hurried), start=1):
            if self._requests >= number:
                event.set()
