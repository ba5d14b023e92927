"""Probes of a service whose database and disk do not respond."""

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.service_process import DATABASE, DEADLINE_SECONDS, Service, get, wait_until

pytestmark = pytest.mark.integration

ORDER = {"customer_id": "alice", "amount": 100, "currency": "EUR"}


def test_probes_are_answered_while_all_connections_wait_for_the_disk(
    start: Callable[..., Service], tmp_path: Path
) -> None:
    """The service is live but not ready while requests hang."""
    service = start(
        DATABASE__STATEMENT_TIMEOUT_SECONDS="20",
        DATABASE__POOL_TIMEOUT_SECONDS="20",
        LIMITS__REQUEST_TIMEOUT_SECONDS="25",
        CIRCUIT_BREAKERS__DATABASE__SLOW_CALL_DURATION="60",
    )
    url = service.url
    with (
        closing(sqlite3.connect(tmp_path / DATABASE, isolation_level=None)) as other,
        ThreadPoolExecutor() as executor,
    ):
        other.execute("BEGIN EXCLUSIVE")
        hanging = [
            executor.submit(
                httpx.post,
                f"{url}/api/v1/payments",
                json=ORDER,
                headers={"Idempotency-Key": f"hanging-{number}"},
                timeout=DEADLINE_SECONDS,
            )
            for number in range(5)
        ]
        wait_until(lambda: httpx.get(f"{url}/health/ready", timeout=10).status_code == 503)
        live = httpx.get(f"{url}/health/live", timeout=10)
        metrics = httpx.get(f"{url}/metrics", timeout=10)
        still_hanging = [not call.done() for call in hanging]
        other.execute("COMMIT")
        answers = [call.result().status_code for call in hanging]

    assert live.status_code == metrics.status_code == 200
    assert all(still_hanging)
    assert set(answers) <= {201, 202}
    wait_until(lambda: get(f"{url}/health/ready").status_code == 200)
