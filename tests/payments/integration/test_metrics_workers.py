"""Metrics of a service with several workers, each of which has its own counts."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, cast

import httpx
import pytest
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.integration

PATIENCE_SECONDS = 120.0
ROUTE = "/api/v1/exchange-rates/{currency}"
NOBODY_LISTENS = "http://127.0.0.1:9"


class Service:
    """A running service of two workers, whose payment provider refuses every connection.

    Args:
        url: The URL of the service.
        files: The directory of the workers' shared metrics.
    """

    def __init__(self, url: str, files: Path) -> None:
        self.url = url
        self.files = files

    def answer(self, path: str, times: int) -> list[httpx.Response]:
        """Send that many requests, each over a new connection and several at once."""
        with ThreadPoolExecutor(6) as threads:
            return list(threads.map(lambda _: httpx.get(self.url + path), range(times)))

    def pids(self) -> set[int]:
        """The workers that are up."""
        return {int(path.suffix.removeprefix(".")) for path in self.files.glob("report.*")}

    def requests_by_worker(self) -> dict[int, float]:
        """The number of requests for rates that each living worker has counted."""
        return {pid: _rates_counted(self.files / f"counter_{pid}.db") for pid in self.pids()}

    def scrapes(self, requests: int) -> list["Scrape"]:
        """Ten scrapes, so that both workers answer some, once all show that many requests."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            scrapes = [Scrape(response.text) for response in self.answer("/metrics", 10)]
            totals = {scrape.total("http_requests_total", route=ROUTE) for scrape in scrapes}
            if totals == {requests}:
                return scrapes
            # The counts of the other worker are up to a second old.
            assert time.monotonic() < deadline, totals


class Scrape:
    """The metrics that one worker returned.

    Args:
        text: The exposition.
    """

    def __init__(self, text: str) -> None:
        self._samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    def total(self, sample_name: str, /, **labels: str) -> float:
        """The sum of a metric's samples with these labels."""
        return sum(
            sample.value
            for sample in self._samples
            if sample.name == sample_name and labels.items() <= sample.labels.items()
        )


def _rates_counted(file: Path) -> float:
    return sum(
        value
        for key, value, *_ in MmapedDict.read_all_values_from_file(str(file))  # type: ignore[no-untyped-call]
        if json.loads(key)[1] == "http_requests_total" and ROUTE in key
    )


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory with a path short enough for sockets, unlike that of pytest."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


@pytest.fixture
def service(short_path: Path) -> Iterator[Service]:
    """The service as `serve` starts it without settings for metrics."""
    environment = {
        "ENVIRONMENT": "test",
        "LOG__FORMAT": "json",
        "PAYMENT_PROVIDER__BASE_URL": NOBODY_LISTENS,
        "PATH": os.environ["PATH"],
        "LIMITS__MONITORING_CACHE_SECONDS": "0",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "TMPDIR": str(short_path),
    }
    command = [sys.executable, "-m", "example_service", "serve", "--port", "0", "--workers", "2"]
    with subprocess.Popen(
        command, env=environment, cwd=short_path, stdout=subprocess.PIPE
    ) as process:
        try:
            url = _url_of(cast("IO[bytes]", process.stdout))
            (files,) = short_path.glob("example-service-*")
            yield Service(url, files)
        finally:
            process.terminate()
            # Its output is read to the end, because a full pipe would keep it from exiting.
            process.communicate(timeout=PATIENCE_SECONDS)
    assert not files.exists()


def _url_of(log: IO[bytes]) -> str:
    for line in log:
        url = json.loads(line).get("url")
        if url is not None:
            return str(url)
    raise AssertionError("the service ended before it served")


def _wait_for_replacement(service: Service, killed: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while killed in service.pids() or len(service.pids()) < 2:
        assert time.monotonic() < deadline, "no worker replaced the killed one"
        time.sleep(0.05)


def test_whichever_worker_answers_shows_the_sums_of_all(service: Service) -> None:
    """Thirty requests are thirty in every scrape, even after a worker was replaced."""
    answers: list[httpx.Response] = []
    # Until both workers have answered some; otherwise nothing would be added up.
    while not answers or not all(service.requests_by_worker().values()):
        assert len(answers) < 300, "all requests went to one worker"
        answers += service.answer("/api/v1/exchange-rates/EUR", 30)
        scrapes = service.scrapes(len(answers))
        rejected = sum(answer.status_code == 503 for answer in answers)
        for scrape in scrapes:
            assert scrape.total("http_request_duration_seconds_count", route=ROUTE) == len(answers)
            assert scrape.total("circuit_breaker_rejections_total", name="payment") == rejected
            assert scrape.total("circuit_breaker_state", name="payment") == 2
    by_worker = service.requests_by_worker()
    assert len(by_worker) == 2

    killed = max(by_worker, key=by_worker.__getitem__)
    os.kill(killed, signal.SIGKILL)
    _wait_for_replacement(service, killed)

    for scrape in service.scrapes(len(answers)):
        assert scrape.total("circuit_breaker_rejections_total", name="payment") == rejected

    answers += service.answer("/api/v1/exchange-rates/EUR", 30)
    assert service.scrapes(len(answers))
