"""What open dashboard pages cost the service."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.service_process import DEADLINE_SECONDS, Service, get, kill

pytestmark = pytest.mark.integration

PAGES = 100
SECONDS = 4.0
GRACE_SECONDS = 2 * DEADLINE_SECONDS


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """The service as a process with one worker."""
    service = Service(
        tmp_path,
        LOG__LEVEL="WARNING",
        LOG__FORMAT="console",
        SHUTDOWN__GRACE_SECONDS=str(GRACE_SECONDS),
    )
    yield service
    kill(service)


def processor_seconds(pid: int) -> float:
    """The CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def share_of_a_processor(pid: int) -> float:
    """The share of a CPU that a process uses over some seconds, from 0 to 1."""
    before, started = processor_seconds(pid), time.monotonic()
    time.sleep(SECONDS)
    return (processor_seconds(pid) - before) / (time.monotonic() - started)


def memory(pid: int) -> int:
    """The resident memory of a process in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def open_pages(url: str, count: int) -> Iterator[list[socket.socket]]:
    """Open the stream that many times and read only its beginning."""
    pages = []
    address = urlsplit(url)
    with ExitStack() as stack:
        for _ in range(count):
            page = socket.create_connection((address.hostname, address.port), DEADLINE_SECONDS)
            stack.enter_context(page)
            page.sendall(b"GET /dashboard/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while b"data: " not in page.recv(65_536):
                pass
            pages.append(page)
        yield pages


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs the files of /proc")
def test_a_hundred_pages_cost_less_than_five_percent(service: Service) -> None:
    """The CPU time of a worker limits its throughput."""
    url, pid = service.url, service.process.pid
    alone = share_of_a_processor(pid)

    with open_pages(url, PAGES):
        share = share_of_a_processor(pid) - alone

    print(f"{PAGES} pages: {100 * share:.1f} % of a processor")  # noqa: T201
    assert share < 0.05


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs the files of /proc")
def test_pages_that_read_nothing_take_no_memory(service: Service) -> None:
    """Nothing is queued for them, and other requests are answered as usual."""
    pid = service.process.pid
    with open_pages(service.url, PAGES):
        before = memory(pid)
        time.sleep(SECONDS)
        grown = memory(pid) - before

    assert grown < 5_000_000
    assert get(f"{service.url}/health/live").status_code == 200


def test_the_service_ends_while_pages_are_open(service: Service) -> None:
    """It ends their streams without waiting for the grace period."""
    with open_pages(service.url, 3) as pages:
        service.process.terminate()
        for page in pages:
            while page.recv(65_536):
                pass
            page.close()
        # This waits for half of the grace period.
        assert service.status() == 0
