"""A way to a real server that can fall silent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_PIECE_BYTES = 65536


class TCPProxy:
    """Hands bytes on between its clients and a server, as long as it is not silent.

    Silent, it accepts connections and takes what is sent, and nothing ever comes back.

    Attributes:
        port: Where it listens, on 127.0.0.1.
    """

    def __init__(self, to_port: int) -> None:
        self.port = 0
        self._to_port = to_port
        self._speaks = asyncio.Event()
        self._speaks.set()
        self._pumps: set[asyncio.Task[None]] = set()

    def fall_silent(self) -> None:
        """Hand on nothing from now on, over connections that there are neither."""
        self._speaks.clear()

    def speak(self) -> None:
        """Hand on what was held back, and everything that follows."""
        self._speaks.set()

    def fail_over(self) -> None:
        """Leave the connections that there are silent for good; those that come later speak."""
        self._speaks.clear()
        self._speaks = asyncio.Event()
        self._speaks.set()

    def lead_to(self, port: int) -> None:
        """Connect to another server from now on; the connections that there are stay."""
        self._to_port = port

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["TCPProxy"]:
        """Listen; at the end, cut every connection."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for pump in self._pumps:
                pump.cancel()
            await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection("127.0.0.1", self._to_port)
        except ConnectionError:
            writer.close()
            return
        for source, target in ((reader, there[1]), (there[0], writer)):
            pump = asyncio.create_task(self._pump(source, target))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        speaks = self._speaks
        try:
            while piece := await source.read(_PIECE_BYTES):
                await speaks.wait()
                target.write(piece)
        except ConnectionError:
            pass
        finally:
            target.close()
