"""Every command on the pages works, with the answer shown there."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from scripts.environment import Environment
from tests.docs import curl
from tests.docs.pages import MARKDOWN_FILES, README, ROOT, blocks_of
from tests.docs.walk import ADDRESS, Walk, comparable_answer, ready_url
from tests.real_parts import missing

pytestmark = pytest.mark.integration

COMMAND_SECONDS = 600
REJECTION_SECONDS = 0.1
WAIT_SECONDS = 3.0
STATES = re.compile(
    r'^HTTP/1.1 [0-9]+|^[0-9]{3}$|^circuit_breaker_state[ {].*|"(?:status|state)":\s?"([a-z_]+)"',
    re.MULTILINE,
)
TUTORIAL = ROOT / "docs" / "tutorial.md"
"""This page changes the project, so `test_tutorial.py` follows it in a copy."""
PAGES_WITH_COMMANDS = [
    page
    for page in MARKDOWN_FILES
    if page != TUTORIAL and any(block.role == "commands" for block in blocks_of(page))
]


@pytest.mark.parametrize("page", PAGES_WITH_COMMANDS, ids=lambda page: page.name)
def test_commands_of_a_page_answer_as_shown(page: Path, tmp_path: Path) -> None:
    """A reader who types all commands of the page in order sees the answers that it shows."""
    with Walk(tmp_path) as walk:
        for block in blocks_of(page):
            if block.role == "commands":
                walk.follow(block)
        walk.stop()


def states_in(answer: str) -> list[str]:
    """What matters in an answer, however many probes have failed."""
    return [found[1] or found[0] for found in STATES.finditer(answer)]


def test_the_tour_works_for_a_reader_who_takes_their_time(tmp_path: Path) -> None:
    """The reader sees the same statuses and states, even if each pause is longer than the wait."""
    with Walk(tmp_path) as walk:
        walk.start(
            CIRCUIT_BREAKERS__PAYMENT__RECOVERY_TIMEOUT=str(WAIT_SECONDS),
            CIRCUIT_BREAKERS__PAYMENT__BACKOFF__MULTIPLIER="1",
        )
        for block in blocks_of(README):
            if block.role == "commands" and ADDRESS in block.text:
                time.sleep(WAIT_SECONDS + 0.5)
                answer = walk.run(block.text)
                if block.output is not None:
                    assert states_in(answer) == states_in(block.output.text)
        walk.stop()


def test_refusals_of_the_service_take_milliseconds(tmp_path: Path) -> None:
    """While the provider hangs, five calls wait for it, and later ones are refused at once."""
    with Walk(tmp_path) as walk:
        walk.start(PAYMENT_PROVIDER__TIMEOUT_SECONDS="0.2")
        with httpx.Client(base_url=walk.url, trust_env=False) as client:
            client.put("/sandbox/mode", json={"mode": "hanging"}).raise_for_status()
            statuses, seconds = [], []
            for _ in range(15):
                response = client.get("/api/v1/exchange-rates/EUR")
                statuses.append(response.status_code)
                seconds.append(response.elapsed.total_seconds())
        walk.stop()

    assert statuses == [504] * 5 + [503] * 10
    assert min(seconds[:5]) >= 0.2
    # A busy machine may delay some of them.
    assert min(seconds[5:]) < REJECTION_SECONDS


@pytest.fixture
def _built_by_make() -> None:
    """Skip the test if make would rebuild the environment in which it runs."""
    environment = Environment(ROOT, ROOT / ".venv", ROOT / "requirements-dev.lock")
    if environment.recorded() != environment.fingerprints():
        missing("the environment is not the one that make builds; run `make test`")


@pytest.mark.usefixtures("_built_by_make")
def test_make_run_serves_until_interrupted(tmp_path: Path) -> None:
    """The first command of the README starts the service, and Ctrl+C stops it."""
    # The first time, this takes longer than an ordinary start.
    subprocess.run(["make", "-C", str(ROOT), "environment-run"], check=True, capture_output=True)
    log = tmp_path / "service.log"
    with log.open("wb") as output:
        make = subprocess.Popen(
            ["make", "-C", str(ROOT), "run", "PORT=0"],
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        url = urlsplit(ready_url(log, make))
        rate = httpx.get(f"{url.geturl()}/api/v1/exchange-rates/EUR", trust_env=False)
        os.killpg(make.pid, signal.SIGINT)
        make.wait(60)
    finally:
        if make.poll() is None:
            os.killpg(make.pid, signal.SIGKILL)
            make.wait()

    assert rate.json() == {"currency": "EUR", "base": "USD", "rate": "0.92"}
    with pytest.raises(ConnectionRefusedError), socket.create_connection((url.hostname, url.port)):
        pass


@pytest.mark.usefixtures("_built_by_make")
def test_make_test_runs_the_tests() -> None:
    """The second command of the README runs pytest with the given arguments."""
    make = subprocess.run(
        ["make", "-C", str(ROOT), "test", "ARGS=tests/test_public_names.py"],
        timeout=COMMAND_SECONDS,
        capture_output=True,
        text=True,
        check=False,
    )

    assert make.returncode == 0, make.stdout + make.stderr
    assert " passed in " in make.stdout


def test_replacement_for_curl_answers_like_curl(tmp_path: Path) -> None:
    """With it, the commands of the pages can be tested on machines without curl."""
    programs = [str(curl.install(tmp_path) / "curl"), *filter(None, [shutil.which("curl")])]
    rate = f"-s {ADDRESS}/api/v1/exchange-rates/EUR"
    invalid = f"-s -o /dev/null -w '%{{http_code}}\\n' -X PUT -d '{{}}' {ADDRESS}/sandbox/mode"
    live = f"-s -i -H 'Accept: text/html' {ADDRESS}/health/live"
    with Walk(tmp_path) as walk:
        walk.start()
        for program in programs:
            assert walk.run(f"{program} {rate}") == '{"currency":"EUR","base":"USD","rate":"0.92"}'
            assert walk.run(f"{program} {invalid}") == "422\n"
            status, headers, body = comparable_answer(walk.run(f"{program} {live}"))
            assert (status, body) == ("HTTP/1.1 200 OK", '{\n  "status": "alive"\n}')
            assert "content-type: application/json" in headers
        walk.stop()
