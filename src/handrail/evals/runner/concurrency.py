"""How many trials run side by side: as many as allowed, and fewer while the provider limits the rate."""

import asyncio
from collections import deque
from types import TracebackType


class Throttle:
    """A semaphore whose size follows the provider's rate limit.

    The rule is TCP's, additive increase and multiplicative decrease (Chiu and Jain 1989): a rate-limit error halves the
    size, and each success adds 1/size, which is one more slot for a full round of successes. So the size settles around
    what the provider allows, which nobody has to configure. A smaller size stops no trial that is running; it only
    delays the next ones, which wait in order of arrival.
    """

    def __init__(self, max_slots: int) -> None:
        self._max = max_slots
        self._size = float(max_slots)
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def slots(self) -> int:
        """How many trials may run now."""
        return int(self._size)

    def record_success(self) -> None:
        """A trial ended without an error of the provider."""
        self._size = min(self._max, self._size + 1 / self._size)
        self._admit()

    def back_off(self) -> None:
        """The provider limited the rate."""
        self._size = max(1.0, self._size / 2)

    async def __aenter__(self) -> None:
        if self._taken < self.slots and not self._waiting:
            self._taken += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            # Cancelled after it was given a slot, which would be lost if it were not released.
            if turn.done() and not turn.cancelled():
                self._release()
            raise

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._release()

    def _release(self) -> None:
        self._taken -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._taken < self.slots:
            turn = self._waiting.popleft()
            if not turn.done():
                # The slot is taken here and not by the trial itself, so that one that arrives meanwhile cannot get it.
                self._taken += 1
                turn.set_result(None)
