"""Charges that reach the provider late, possibly long after their callers have given up."""

import asyncio


class LateCharges:
    """Holds back charges until their delay has passed or all of them are delivered."""

    def __init__(self) -> None:
        self._on_their_way: dict[asyncio.Future[bool], asyncio.Event] = {}
        self._is_closed = False

    async def arrive(self, delay_seconds: float) -> bool:
        """Wait until a charge arrives at the provider.

        Returns:
            Whether it arrives. False if it was dropped.
        """
        if self._is_closed:
            return False
        loop = asyncio.get_running_loop()
        arrival: asyncio.Future[bool] = loop.create_future()
        self._on_their_way[arrival] = asyncio.Event()
        timer = loop.call_later(delay_seconds, _settle, arrival, True)
        try:
            return await arrival
        finally:
            timer.cancel()
            self._on_their_way.pop(arrival).set()

    async def deliver(self) -> int:
        """Let all waiting charges arrive now, and wait until they have reached the ledger.

        Returns:
            The number of charges.
        """
        delivered = dict(self._on_their_way)
        for arrival in delivered:
            _settle(arrival, True)
        # A task sets its event and uses the ledger without an `await` in between, so when an event
        # is set, the charge is in the ledger.
        await asyncio.gather(*(arrived.wait() for arrived in delivered.values()))
        return len(delivered)

    def drop(self) -> None:
        """Drop all waiting charges, so that they never arrive."""
        for arrival in tuple(self._on_their_way):
            _settle(arrival, False)

    def close(self) -> None:
        """Drop all waiting and future charges."""
        self._is_closed = True
        self.drop()


def _settle(arrival: asyncio.Future[bool], arrives: bool) -> None:
    if not arrival.done():
        arrival.set_result(arrives)
