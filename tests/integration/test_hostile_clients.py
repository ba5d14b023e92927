"""Attacks over real sockets: one client must not deny service to the others."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.service_process import DEADLINE_SECONDS, Service, get, kill, wait_until

pytestmark = pytest.mark.integration

GET = b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /api/v1/payments HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
LIVE = "/health/live"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with few slots, short limits, and room for all connections of a test."""
    service = Service(
        tmp_path_factory.mktemp("service"),
        LIMITS__MAX_CONCURRENT_REQUESTS="20",
        LIMITS__MAX_CONNECTIONS="300",
        LIMITS__RECEIVE_TIMEOUT_SECONDS="30",
        LIMITS__SEND_TIMEOUT_SECONDS="3",
        LIMITS__REQUEST_TIMEOUT_SECONDS="60",
    )
    # Tests measure what it uses once it serves.
    assert service.url
    yield service
    kill(service)


@contextlib.contextmanager
def connections(service: Service, count: int) -> Iterator[list[socket.socket]]:
    """That many connections, closed at the end of the block."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(connect(service)) for _ in range(count)]


def connect(service: Service, receive_buffer_bytes: int | None = None) -> socket.socket:
    """A connection to the service."""
    host, port = service.url.removeprefix("http://").split(":")
    connection = socket.socket()
    if receive_buffer_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    connection.settimeout(DEADLINE_SECONDS)
    connection.connect((host, int(port)))
    return connection


def read_all(connection: socket.socket) -> bytes:
    """Read everything until the server closes the connection."""
    with connection.makefile("rb") as stream:
        return stream.read()


def status_of(answer: bytes) -> int:
    """The status of the first response."""
    return int(answer.split(b" ", 2)[1])


def memory_mib(service: Service) -> float:
    """The memory that the service uses now."""
    pages = int(Path(f"/proc/{service.process.pid}/statm").read_text().split()[1])
    return pages * 4096 / 1024**2


@pytest.mark.parametrize(
    ("path", "times"), [("/openapi.json", 60), ("/docs/swagger-ui-bundle.js", 1)]
)
def test_clients_that_stop_reading_cost_no_slot(service: Service, path: str, times: int) -> None:
    """Others are served meanwhile, and the connections are closed after a few seconds.

    This applies to many responses that are sent at once, and to one that is sent in parts.
    """
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(connect(service, 4096)) for _ in range(60)]
        for connection in held:
            connection.sendall(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode() * times)
            # The response has started, so this is no burst of requests that all wait for one.
            connection.recv(1)
        statuses = {get(f"{service.url}/openapi.json").status_code for _ in range(10)}
        assert statuses == {200}

        def are_gone() -> bool:
            for connection in held:
                connection.setblocking(False)
                try:
                    connection.send(b"x")
                except ConnectionError:
                    continue
                except BlockingIOError:
                    return False
                return False
            return True

        wait_until(are_gone)


def test_a_flood_of_pipelined_requests_is_not_kept_in_memory(service: Service) -> None:
    """Unread requests stay with the client, and the service serves all others."""
    before = memory_mib(service)
    slowest = 0.0
    with connections(service, 4) as attackers:

        def flood(connection: socket.socket) -> None:
            with contextlib.suppress(OSError):
                connection.settimeout(4)
                connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n" * 250_000)

        with ThreadPoolExecutor() as executor:
            floods = [executor.submit(flood, connection) for connection in attackers]
            while not all(future.done() for future in floods):
                start = time.monotonic()
                assert get(service.url + LIVE).status_code == 200
                slowest = max(slowest, time.monotonic() - start)
        assert memory_mib(service) < before + 50
    assert slowest < 5


def test_unfinished_requests_cost_no_slot(service: Service) -> None:
    """Endless headers and missing bodies do not count towards the limit of 20 requests."""
    with connections(service, 120) as held:
        for connection in held[:60]:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
        for connection in held[60:]:
            connection.sendall(POST + b"Content-Length: 10\r\nIdempotency-Key: k\r\n\r\n")
        time.sleep(0.5)

        statuses = {get(f"{service.url}/openapi.json").status_code for _ in range(5)}
        order = {"amount": 1, "currency": "EUR", "customer_id": "c"}
        paid = httpx.post(
            f"{service.url}/api/v1/payments", json=order, headers={"Idempotency-Key": "real"}
        )

    assert statuses == {200}
    assert paid.status_code == 201


def test_connections_above_the_limit_close_the_oldest(service: Service) -> None:
    """A new client is served, however many others keep theirs open."""
    with connections(service, 400):
        for _ in range(5):
            assert get(f"{service.url}/openapi.json").status_code == 200


@pytest.mark.parametrize(
    "request_",
    [
        POST + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 100_000 + b"\r\nx\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"x: y\r\n" * 30_000 + b"\r\n",
        POST + b"Content-Length: 9999999999999999999\r\n\r\n" + b"x" * 5_000_000,
        POST + b"Content-Length: 99999999999999999999\r\n\r\n" + b"x" * 5_000_000,
        POST + b"Content-Length: 5000000\r\n\r\n" + b"x" * 5_000_000,
        POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1000\r\n" + b"x" * 5_000_000,
        POST + b"Transfer-Encoding: gzip\r\n\r\n" + b"x" * 5_000_000,
        POST + b"Content-Encoding: gzip\r\nContent-Length: 5000000\r\n\r\n" + b"x" * 5_000_000,
        b"GET / HTTP/3.0\r\nHost: a\r\n\r\n" + b"x" * 5_000_000,
        b"nonsense\r\n\r\n" + b"x" * 5_000_000,
        b"GET /" + b"x" * 5_000_000,
    ],
)
def test_a_refusal_reaches_a_client_that_is_still_sending(
    service: Service, request_: bytes
) -> None:
    """After sending its whole body, the client reads a problem instead of a reset."""
    with connect(service) as connection:
        for at in range(0, len(request_), 100_000):
            connection.sendall(request_[at : at + 100_000])
            time.sleep(0.005)
        answer = read_all(connection)

    assert 400 <= status_of(answer) < 600
    assert b"content-type: application/problem+json" in answer.lower()
    assert b"connection: close" in answer.lower()
    assert answer.count(b"\r\ndate: ") == 1


@pytest.mark.parametrize("request_", [GET, GET * 3, b"GET /openapi.json HTTP/1.0\r\n\r\n"])
def test_a_client_that_closes_its_end_is_answered(service: Service, request_: bytes) -> None:
    """`nc` does that after its input, and so do HTTP/1.0 tools."""
    with connect(service) as connection:
        connection.sendall(request_)
        connection.shutdown(socket.SHUT_WR)
        answer = read_all(connection)

    assert answer.count(b"HTTP/1.1 200 OK") == request_.count(b"HTTP/1.")


def test_clients_that_leave_log_no_errors(service: Service) -> None:
    """They leave after one request, after several, within a body, and with a reset."""
    log_before = len(service.text)
    for request_ in (GET, GET * 2, GET + POST + b"Content-Length: 10\r\n\r\nx", GET * 100):
        for reset in (False, True):
            for _ in range(5):
                with connect(service) as connection:
                    connection.sendall(request_)
                    if reset:
                        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    wait_until(lambda: "http_requests_in_flight 1.0" in get(f"{service.url}/metrics").text)

    written = service.text[log_before:]
    assert '"level":"error"' not in written
    assert "Traceback" not in written
    assert 'status="500"' not in get(f"{service.url}/metrics").text


def test_a_body_that_stops_is_refused_in_time(tmp_path: Path) -> None:
    """The response is 408, even if the body trickles."""
    service = Service(tmp_path, LIMITS__RECEIVE_TIMEOUT_SECONDS="1")
    try:
        with connect(service) as connection:
            connection.sendall(POST + b"Content-Length: 100\r\n\r\n")
            stop = threading.Event()

            def trickle() -> None:
                with contextlib.suppress(OSError):
                    while not stop.wait(0.2):
                        connection.send(b"x")

            thread = threading.Thread(target=trickle)
            thread.start()
            answer = read_all(connection)
            stop.set()
            thread.join()
        assert status_of(answer) == 408
        assert b'/problems/body-too-slow"' in answer
    finally:
        kill(service)


def test_running_out_of_file_descriptors_logs_one_line(service: Service) -> None:
    """Open connections go on, and new ones are served once descriptors are free."""
    resource = pytest.importorskip("resource")
    pid = service.process.pid
    before = len(service.text)
    limit = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 5, limit[1]))
    try:
        # More than the connections of the previous test that the service may still have to close.
        with connections(service, 100):
            wait_until(lambda: "No file descriptors are left" in service.text[before:])
            # Twice the interval after which it would be logged again.
            time.sleep(2.0)
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)

    wait_until(lambda: get(service.url + LIVE).status_code == 200)
    said = service.text[before:]
    assert said.count("No file descriptors are left") == 1
    assert "Traceback" not in said
    assert service.errors == ""
