"""How the server stops, and on which address it listens."""

import asyncio
import errno
import os
import signal
import socket
from collections.abc import Iterator

import pytest
from uvicorn.lifespan.off import LifespanOff

from example_service.core.lifecycle import end_draining, is_draining
from example_service.core.settings import Settings
from example_service.core.settings.model import HTTPSettings, ShutdownSettings
from example_service.server.process import (
    CLEAN_UP_SECONDS,
    STOP_SIGNALS,
    DrainingServer,
    ListenError,
    _log_error_of_loop,
    listen,
    server_config,
)
from example_service.server.protocol import ProblemProtocol


@pytest.fixture(autouse=True)
def _not_draining() -> Iterator[None]:
    """Stop draining after each test, because this state belongs to the process."""
    yield
    end_draining()


class Stopping:
    """A server that does not run, with the exits that it would have made."""

    def __init__(
        self, drain_seconds: float, *signals: signal.Signals, grace_seconds: float = 30.0
    ) -> None:
        self.exits: list[int] = []
        self.server = DrainingServer(
            server_config(Settings()),
            shutdown=ShutdownSettings(drain_seconds=drain_seconds, grace_seconds=grace_seconds),
            on_started=lambda: None,
            exit_now=self.exits.append,
            stop_signals=frozenset(signals) or STOP_SIGNALS,
        )


def test_the_same_signal_twice_in_quick_succession_counts_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`timeout` signals its child and then the child's group, which takes a busy machine long."""
    now = 100.0
    monkeypatch.setattr("example_service.server.process.time.monotonic", lambda: now)
    stopping = Stopping(60.0)
    for now in (100.0, 100.1, 100.25):  # noqa: B007 - the clock returns it
        stopping.server.handle_exit(signal.SIGTERM, None)
    assert stopping.exits == []

    now = 100.3
    stopping.server.handle_exit(signal.SIGTERM, None)

    assert stopping.exits == [128 + signal.SIGTERM]


async def test_without_a_drain_the_first_signal_closes_the_socket() -> None:
    """The process counts as draining, and the server leaves its loop at the next tick."""
    stopping = Stopping(0.0)
    assert not await stopping.server.on_tick(0)

    stopping.server.handle_exit(signal.SIGTERM, None)

    assert is_draining()
    assert await stopping.server.on_tick(1)
    assert stopping.exits == []


async def test_while_it_drains_the_server_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket stays open for as long as the drain lasts."""
    now = 100.0
    monkeypatch.setattr("example_service.server.process.time.monotonic", lambda: now)
    stopping = Stopping(5.0)

    stopping.server.handle_exit(signal.SIGINT, None)

    assert is_draining()
    now = 104.0
    assert not await stopping.server.on_tick(1)
    now = 105.0
    assert await stopping.server.on_tick(2)


async def test_while_it_drains_connections_close_with_their_answer() -> None:
    """This includes connections that were opened before the signal."""

    class FakeConnection:
        checks = 0
        closing = 0

        def check(self, _: float) -> None:
            self.checks += 1

        def close_with_answer(self) -> None:
            self.closing += 1

    stopping, connection = Stopping(5.0), FakeConnection()
    stopping.server.server_state.connections = {connection}  # type: ignore[arg-type]
    await stopping.server.on_tick(0)
    assert (connection.checks, connection.closing) == (1, 0)

    stopping.server.handle_exit(signal.SIGTERM, None)
    await stopping.server.on_tick(1)

    assert (connection.checks, connection.closing) == (1, 1)


async def test_a_client_that_keeps_its_end_open_does_not_delay_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Connections are checked until the end, or this would take the whole grace period."""
    monkeypatch.setattr("example_service.server.process._CHECK_SECONDS", 0.01)

    class OpenConnection:
        def __init__(self, server: DrainingServer) -> None:
            self._server = server
            self.checks = 0

        def is_new(self, _: float) -> bool:
            return False

        def shutdown(self) -> None:
            """Send the last answer, and wait for the client to close its end."""

        def check(self, _: float) -> None:
            self.checks += 1
            if self.checks == 3:
                self._server.server_state.connections.clear()

    server = Stopping(0.0).server
    server.config.load()
    server.lifespan = LifespanOff(server.config)
    server.servers = []
    server.server_state.connections = {OpenConnection(server)}  # type: ignore[arg-type]

    async with asyncio.timeout(60):
        await server.shutdown()

    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_client_that_has_just_connected_gets_its_answer() -> None:
    """Other workers share the socket, so clients may connect until the end of the drain."""
    server = Stopping(0.0).server
    server.config.load()
    server.lifespan = LifespanOff(server.config)
    server.servers = []

    class NewConnection:
        rounds = 0

        def is_new(self, since: float) -> bool:
            assert since < asyncio.get_running_loop().time()
            self.rounds += 1
            return self.rounds < 3

        def shutdown(self) -> None:
            server.server_state.connections.clear()

    connection = NewConnection()
    server.server_state.connections = {connection}  # type: ignore[arg-type]

    async with asyncio.timeout(60):
        await server.shutdown()

    assert connection.rounds == 3


async def test_requests_that_are_cancelled_clean_up_before_the_application(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """They are cancelled once, at the end of the grace period, and may use what is still open."""
    events: list[str] = []

    class Lifespan(LifespanOff):
        async def shutdown(self) -> None:
            events.append("application closed")

    async def request(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.2)
            events.append(f"{name} cleaned up")

    server = Stopping(0.0, grace_seconds=0.0).server
    server.config.load()
    server.lifespan = Lifespan(server.config)
    server.servers = []
    tasks = [asyncio.create_task(request(name)) for name in ("late request", "other request")]
    for task in tasks:
        server.server_state.tasks.add(task)
        task.add_done_callback(server.server_state.tasks.discard)
    await asyncio.sleep(0)
    tasks[0].cancel("it has exceeded its own time limit")

    async with asyncio.timeout(60):
        await server.shutdown()

    assert events == ["late request cleaned up", "other request cleaned up", "application closed"]
    assert [task.cancelling() for task in tasks] == [1, 1]
    assert [record.requests for record in caplog.records if hasattr(record, "requests")] == [1]


async def test_running_out_of_files_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each shortage is logged once, not every second or for every connection."""
    server = Stopping(0.0).server
    open_file, exhausted = os.open, OSError(errno.EMFILE, "Too many open files")

    def refuse(*_: object) -> int:
        raise exhausted

    for opened in (refuse, refuse, open_file, refuse):
        monkeypatch.setattr(os, "open", opened)
        await server.on_tick(0)
    monkeypatch.setattr(os, "open", open_file)
    loop = asyncio.get_running_loop()
    _log_error_of_loop(loop, {"message": "accept", "exception": exhausted})
    _log_error_of_loop(loop, {"message": "something else"})

    messages = [record.message for record in caplog.records]
    assert [message.partition(";")[0] for message in messages] == [
        "No file descriptors are left",
        "No file descriptors are left",
        "something else",
    ]


def test_the_second_signal_ends_the_process_at_once() -> None:
    """An operator who sends two signals does not want to wait; the exit status names the second."""
    stopping = Stopping(5.0)

    stopping.server.handle_exit(signal.SIGTERM, None)
    stopping.server.handle_exit(signal.SIGINT, None)

    assert stopping.exits == [128 + signal.SIGINT]


def test_a_worker_leaves_the_interrupt_to_its_parent() -> None:
    """A terminal sends SIGINT to all processes, and it must not count as the second signal."""
    stopping = Stopping(5.0, signal.SIGTERM)

    stopping.server.handle_exit(signal.SIGINT, None)
    assert not is_draining()

    stopping.server.handle_exit(signal.SIGTERM, None)
    stopping.server.handle_exit(signal.SIGINT, None)
    assert is_draining()
    assert stopping.exits == []


def test_an_address_is_taken_before_anything_is_started() -> None:
    """The socket listens at once, so no other process can take the port."""
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(ListenError) as refusal:
            listen("127.0.0.1", port)

    assert f"Port {port} on 127.0.0.1 is taken" in str(refusal.value)
    assert "--port" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_reserved_port_has_its_own_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message suggests a port that needs no privileges."""

    def refuse(*_: object, **__: object) -> socket.socket:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("example_service.server.process.socket.create_server", refuse)

    with pytest.raises(ListenError, match=r"Port 80 is reserved.*--port 8000"):
        listen("127.0.0.1", 80)


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_ipv6_addresses_are_listened_on() -> None:
    """A host with a colon is an IPv6 address."""
    with listen("::1", 0) as listener:
        assert listener.family is socket.AF_INET6


def test_an_address_of_another_machine_is_refused_in_one_line() -> None:
    """The line contains the reason that the system gives, and the setting to change."""
    with pytest.raises(ListenError, match=r"Cannot listen on '192\.0\.2\.1': .*HOST or --host"):
        listen("192.0.2.1", 0)


@pytest.mark.parametrize("host", ["x" * 64, "..", "no\nname"])
def test_a_host_that_is_not_a_valid_name_is_refused_in_one_line(host: str) -> None:
    """Long names and invalid characters do not lead to a traceback."""
    with pytest.raises(ListenError, match="--host") as refusal:
        listen(host, 0)

    assert "\n" not in str(refusal.value)


def test_features_of_the_server_that_the_service_replaces_are_off() -> None:
    """The server writes no access log and no `Server` header, and configures no logging."""
    config = server_config(Settings(shutdown=ShutdownSettings(grace_seconds=1.5)))
    config.load_app = lambda: lambda: None  # type: ignore[method-assign]

    config.load()

    assert (config.access_log, config.server_header, config.log_config) == (False, False, None)
    assert config.timeout_graceful_shutdown == 2 + CLEAN_UP_SECONDS
    assert config.http_protocol_class.func is ProblemProtocol  # type: ignore[attr-defined]
    assert config.reset_contextvars
    assert config.encoded_headers == []


@pytest.mark.parametrize(("files", "most"), [(1024, 864), (200, 100), (1_000_000, 4096)])
def test_connections_leave_file_descriptors_for_the_rest(
    files: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise clients could use up all of them, and the database could not be reached."""
    monkeypatch.setattr("resource.getrlimit", lambda _: (files, files))

    protocol = server_config(Settings()).http

    assert protocol.keywords["limits"].connections == most  # type: ignore[union-attr]


def test_idle_connections_are_kept_longer_than_proxies_keep_theirs() -> None:
    """If the server closed first, a request that the proxy is just sending would be lost."""
    patient = HTTPSettings(keep_alive_seconds=620)

    assert server_config(Settings()).timeout_keep_alive > 60
    assert server_config(Settings(http=patient)).timeout_keep_alive == 620


def test_headers_of_proxies_are_left_to_the_application() -> None:
    """The application evaluates them itself, with its own rules."""
    http = HTTPSettings(trusted_proxies=["10.0.0.0/8"])

    assert not server_config(Settings(http=http)).proxy_headers
