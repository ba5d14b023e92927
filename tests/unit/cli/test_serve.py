"""What `serve` prepares before it serves; `tests/integration/test_serve.py` has the processes."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from example_service.cli.serve import SandboxError, sandbox_if_needed, serve
from example_service.core.settings import Settings
from example_service.core.settings.model import PaymentProviderSettings
from example_service.server.process import DrainingServer


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put back what is process-wide: the addresses of a sandbox, and logging."""
    for name in ("PAYMENT_PROVIDER__BASE_URL", "SANDBOX__CONTROL_URL"):
        monkeypatch.setenv(name, "")
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have another program run instead of Python, with this shell script in it."""

    def replace(script: str) -> None:
        program = tmp_path / "program"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))

    return replace


def test_the_addresses_of_the_sandbox_reach_the_environment(
    stand_in: Callable[[str], None],
) -> None:
    """The application and its workers read them like any other setting."""
    stand_in('echo \'{"provider": "http://127.0.0.1:1", "control": "http://127.0.0.1:2"}\'; cat')

    with sandbox_if_needed(Settings()):
        assert os.environ["PAYMENT_PROVIDER__BASE_URL"] == "http://127.0.0.1:1"
        assert os.environ["SANDBOX__CONTROL_URL"] == "http://127.0.0.1:2"


def test_the_seed_reaches_the_sandbox(
    stand_in: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a seed, the same faults come again."""
    monkeypatch.setenv("SANDBOX__SEED", "7")
    stand_in(
        f'echo "$@" > {tmp_path}/arguments;'
        'echo \'{"provider": "http://127.0.0.1:1", "control": "http://127.0.0.1:2"}\'; cat'
    )

    with sandbox_if_needed(Settings()):
        arguments = (tmp_path / "arguments").read_text()

    assert arguments.split() == ["-m", "example_service.sandbox", "--seed", "7"]


@pytest.mark.parametrize("script", ["exit 3", "echo no JSON; cat"])
def test_a_sandbox_that_does_not_start_is_an_error(
    script: str, stand_in: Callable[[str], None]
) -> None:
    """The text says what to do instead."""
    stand_in(script)

    with (
        pytest.raises(SandboxError, match="PAYMENT_PROVIDER__BASE_URL"),
        sandbox_if_needed(Settings()),
    ):
        pytest.fail("it did not start")


@pytest.mark.parametrize(
    "settings",
    [
        Settings(environment="test"),
        Settings(payment_provider=PaymentProviderSettings(base_url="http://127.0.0.1:9")),
    ],
)
def test_the_sandbox_is_for_development_without_a_provider(
    settings: Settings, stand_in: Callable[[str], None]
) -> None:
    """Elsewhere nothing is started."""
    stand_in("exit 3")

    with sandbox_if_needed(settings):
        assert os.environ["PAYMENT_PROVIDER__BASE_URL"] == ""


@pytest.mark.parametrize(
    ("host", "shown"),
    [("127.0.0.1", "http://127.0.0.1:"), ("0.0.0.0", "http://localhost:")],  # noqa: S104 - a free port, for a moment
)
def test_the_banner_shows_addresses_that_work(
    host: str,
    shown: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In development it names the pages, and the sandbox only if there is one."""
    provider = PaymentProviderSettings(base_url="http://127.0.0.1:9")
    monkeypatch.setattr(DrainingServer, "run", lambda server, _: server._on_started())

    assert serve(Settings(host=host, port=0, payment_provider=provider)) == 0

    banner = capsys.readouterr().out
    assert f"is ready: {shown}" in banner
    for path in ("/docs", "/metrics", "/health/circuit-breakers", "/problems/"):
        assert f"{path}" in banner
    assert "/sandbox/mode" not in banner
    assert "Stop with Ctrl+C" in banner


def test_production_has_no_banner(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard output belongs to the log there; a line tells the address."""
    monkeypatch.setattr(DrainingServer, "run", lambda server, _: server._on_started())

    assert serve(Settings(environment="production", port=0)) == 0

    (line,) = capsys.readouterr().out.splitlines()
    assert '"event":"Serving","url":"http://127.0.0.1:' in line
