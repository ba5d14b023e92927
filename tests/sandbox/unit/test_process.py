"""The process in which `serve` runs the sandbox; integration tests run the real one."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from example_service.core.exceptions import StartError
from example_service.core.settings import Settings
from example_service.payments.settings import PaymentProviderSettings
from example_service.sandbox.domain import SANDBOX
from example_service.sandbox.process import sandbox_if_needed
from example_service.sandbox.settings import SandboxSettings, WithSandbox


@pytest.fixture(autouse=True)
def _addresses_of_this_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore the environment variables that the sandbox sets."""
    for name in ("PAYMENT_PROVIDER__BASE_URL", "SANDBOX__CONTROL_URL"):
        monkeypatch.setenv(name, "")


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Run this shell script instead of Python."""

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
    """With a seed, the sandbox repeats the same faults."""
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
    """The message says what to do instead."""
    stand_in(script)

    with (
        pytest.raises(StartError, match="PAYMENT_PROVIDER__BASE_URL"),
        sandbox_if_needed(Settings()),
    ):
        pytest.fail("it did not start")


def test_no_sandbox_is_started_beside_another_provider(stand_in: Callable[[str], None]) -> None:
    """The configured provider is used, and no commands to try are printed."""
    stand_in("exit 3")
    provider = PaymentProviderSettings(base_url="http://127.0.0.1:9")

    with sandbox_if_needed(Settings(payment_provider=provider)) as hints:
        assert os.environ["PAYMENT_PROVIDER__BASE_URL"] == ""
        assert hints("http://localhost:8000") == ()


def test_a_sandbox_that_runs_already_is_shown() -> None:
    """A developer who started it by hand sees how to use it."""
    provider = PaymentProviderSettings(base_url="http://127.0.0.1:9")
    sandbox = SandboxSettings(control_url="http://127.0.0.1:10")

    with sandbox_if_needed(Settings(payment_provider=provider, sandbox=sandbox)) as hints:
        assert any("/sandbox/mode" in line for line in hints("http://localhost:8000"))


@pytest.mark.parametrize("environment", ["test", "production"])
def test_only_development_has_a_sandbox(environment: str) -> None:
    """In other environments there is neither its process nor its routes."""
    assert not SANDBOX.is_enabled(Settings(environment=environment))
    assert SANDBOX.is_enabled(Settings())


def test_the_sandbox_has_no_place_in_production() -> None:
    """Its control address is refused even beside a real provider."""
    sandbox = SandboxSettings(control_url="http://127.0.0.1:9000")

    refused = WithSandbox(sandbox=sandbox).domain_problems()

    assert [problem.variable for problem in refused] == ["SANDBOX__CONTROL_URL"]
