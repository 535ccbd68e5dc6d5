"""How many trials run side by side: as many as allowed, fewer once a provider says that it is too many."""

import asyncio
from collections import deque
from types import TracebackType


class Throttle:
    """Places for trials: halved when a provider limits the rate, grown back by one for each full round that went well.

    The rule is TCP's: additive increase, multiplicative decrease (Chiu and Jain, 1989).
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(most)
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def places(self) -> int:
        """How many may run now."""
        return int(self._limit)

    def went_well(self) -> None:
        """One trial came through."""
        self._limit = min(self._most, self._limit + 1 / self._limit)
        self._let_in()

    def too_many(self) -> None:
        """The provider asked for less."""
        self._limit = max(1.0, self._limit / 2)

    async def __aenter__(self) -> None:
        if self._taken < self.places and not self._waiting:
            self._taken += 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._leave()
            raise

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        self._taken -= 1
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._taken < self.places:
            place = self._waiting.popleft()
            if not place.done():
                self._taken += 1
                place.set_result(None)
