"""A TCP proxy that can stop forwarding."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

_PIECE_BYTES = 65536


class TCPProxy:
    """Forwards bytes between clients and a server, unless it is silent.

    A silent proxy accepts connections and reads what clients send, but forwards nothing.

    Attributes:
        port: Its port on 127.0.0.1.
    """

    def __init__(self, to_port: int) -> None:
        self.port = 0
        self._to_port = to_port
        self._requests, self._replies = _open_way(), _open_way()
        self._pumps: set[asyncio.Task[None]] = set()

    @property
    def is_silent(self) -> bool:
        """Whether it holds back the data of new connections."""
        return not (self._requests.is_set() and self._replies.is_set())

    def fall_silent(self, *, requests: bool = True, replies: bool = True) -> None:
        """Stop forwarding, over existing connections as well.

        Args:
            requests: Hold back the data from clients.
            replies: Hold back the data from the server.
        """
        if requests:
            self._requests.clear()
        if replies:
            self._replies.clear()

    def speak(self) -> None:
        """Forward what was held back, and everything that follows."""
        self._requests.set()
        self._replies.set()

    def fail_over(self) -> None:
        """Keep the existing connections silent forever, and forward those opened later."""
        self.fall_silent()
        self._requests, self._replies = _open_way(), _open_way()

    def lead_to(self, port: int) -> None:
        """Connect new clients to another server; existing connections stay."""
        self._to_port = port

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["TCPProxy"]:
        """Listen until the end of the block, then cut every connection."""
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
        ways = ((reader, there[1], self._requests), (there[0], writer, self._replies))
        for source, target, way in ways:
            pump = asyncio.create_task(self._pump(source, target, way))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, way: asyncio.Event
    ) -> None:
        try:
            while piece := await source.read(_PIECE_BYTES):
                await way.wait()
                target.write(piece)
        except ConnectionError:
            pass
        finally:
            target.close()


class ProxyThread:
    """A proxy in a separate thread, for synchronous tests.

    Attributes:
        port: Its port on 127.0.0.1.
    """

    def __init__(self, proxy: TCPProxy, loop: asyncio.AbstractEventLoop) -> None:
        self.port = proxy.port
        self._proxy = proxy
        self._loop = loop

    def fall_silent(self) -> None:
        """Stop forwarding."""
        self._loop.call_soon_threadsafe(self._proxy.fall_silent)

    def speak(self) -> None:
        """Forward what was held back, and everything that follows."""
        self._loop.call_soon_threadsafe(self._proxy.speak)


@contextmanager
def proxy_thread(to_port: int) -> Iterator[ProxyThread]:
    """Run a proxy until the end of the block."""
    started, ended = threading.Event(), asyncio.Event()
    threads: list[ProxyThread] = []

    async def serve() -> None:
        async with TCPProxy(to_port).listening() as proxy:
            threads.append(ProxyThread(proxy, asyncio.get_running_loop()))
            started.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    started.wait()
    loop = threads[0]._loop
    try:
        yield threads[0]
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()


def _open_way() -> asyncio.Event:
    way = asyncio.Event()
    way.set()
    return way
