"""Charges that are still on their way to the provider, long after their callers have left."""

import asyncio


class LateCharges:
    """Keeps charges on their way until their time has come, or all of them are delivered."""

    def __init__(self) -> None:
        self._on_their_way: dict[asyncio.Future[bool], asyncio.Event] = {}
        self._is_closed = False

    async def arrive(self, delay_seconds: float) -> bool:
        """Wait until a charge arrives at the provider.

        Returns:
            Whether it does; false if it was dropped meanwhile.
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
        """Let everything that is on its way arrive now.

        Returns:
            How many charges that was; all of them have reached the ledger.
        """
        delivered = dict(self._on_their_way)
        for arrival in delivered:
            _settle(arrival, True)
        # Each event is set in the step of its task that also uses the ledger, which never awaits.
        await asyncio.gather(*(arrived.wait() for arrived in delivered.values()))
        return len(delivered)

    def drop(self) -> None:
        """Let nothing that is on its way ever arrive."""
        for arrival in tuple(self._on_their_way):
            _settle(arrival, False)

    def close(self) -> None:
        """Drop everything that is on its way, and whatever sets out later."""
        self._is_closed = True
        self.drop()


def _settle(arrival: asyncio.Future[bool], arrives: bool) -> None:
    if not arrival.done():
        arrival.set_result(arrives)
