"""What `serve` prepares; `tests/integration/test_serve.py` tests real processes."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from pydantic import SecretStr

from example_service.cli.serve import _banner, _database_fault, serve
from example_service.core.exceptions import StartError
from example_service.core.settings import LogSettings, Settings
from example_service.core.settings.model import APISettings
from example_service.domain import Domain, Hints
from example_service.migrations import upgrade
from example_service.server.process import DrainingServer


@pytest.fixture(autouse=True)
def _schema() -> None:
    """A database that is up to date."""
    asyncio.run(upgrade(Settings()))


def domains(monkeypatch: pytest.MonkeyPatch, *domains: Domain) -> None:
    """Give the service exactly these domains."""
    monkeypatch.setattr("example_service.cli.serve.enabled_domains", lambda _: domains)


@contextmanager
def opening_hours(_: Settings) -> Iterator[Hints]:
    """The `serving` hook of a domain that has a hint for the developer."""
    yield lambda url: [f"Visit {url}/shop"]


def out_of_stock(_: Settings) -> AbstractContextManager[Hints]:
    """The `serving` hook of a domain that cannot start."""
    raise StartError("The shop is empty.")


@pytest.mark.parametrize(
    ("host", "shown"),
    [("127.0.0.1", "http://127.0.0.1:"), ("0.0.0.0", "http://localhost:")],  # noqa: S104 - a free port, only briefly
)
def test_the_banner_shows_addresses_that_work(
    host: str,
    shown: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In development, the banner lists the pages and the hints of the domains."""
    domains(monkeypatch, Domain(name="shop", serving=opening_hours))
    monkeypatch.setattr(DrainingServer, "run", lambda server, _: server._on_started())

    settings = Settings(
        host=host,
        port=0,
        log=LogSettings(format="console"),
    )
    assert serve(settings) == 0

    banner = capsys.readouterr().out
    assert f"is ready: {shown}" in banner
    for path in ("/docs", "/metrics", "/health/circuit-breakers", "/problems/"):
        assert f"{path}" in banner
    assert f"Visit {shown}" in banner
    assert "Stop with Ctrl+C" in banner


def test_a_domain_that_cannot_start_prevents_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is served, and the error gives the reason."""
    domains(monkeypatch, Domain(name="shop", serving=out_of_stock))
    monkeypatch.setattr(DrainingServer, "run", lambda *_: pytest.fail("it was served"))

    with pytest.raises(StartError, match="shop is empty"):
        serve(Settings(port=0))


def test_a_log_for_programs_has_no_banner(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In development, too, every line is JSON, so the log can be replayed."""
    monkeypatch.setattr(DrainingServer, "run", lambda server, _: server._on_started())

    assert serve(Settings(port=0, log=LogSettings(format="json"))) == 0

    events = [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]
    assert "Serving" in events


def test_production_has_no_banner(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard output is reserved for the log, which has a line with the address."""
    monkeypatch.setattr(DrainingServer, "run", lambda server, _: server._on_started())

    settings = Settings(
        environment="production",
        port=0,
        api=APISettings(keys=[f"shop:{'4b' * 32}"]),
    )
    assert serve(settings) == 0

    (line,) = capsys.readouterr().out.splitlines()
    assert '"event":"Serving","url":"http://127.0.0.1:' in line


@pytest.mark.parametrize(
    ("api", "reason"),
    [(APISettings(), "API__KEYS is not set"), (APISettings(open=True), "API__OPEN is true")],
)
def test_a_line_says_that_the_api_is_open(
    api: APISettings,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The line is logged once, at the start, and names the setting that causes this."""
    monkeypatch.setattr(DrainingServer, "run", lambda server, _: server._on_started())

    serve(Settings(environment="production", port=0, api=api))

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["reason"] for line in lines if line["event"].startswith("The API is open")] == [
        reason
    ]


def test_a_missing_schema_is_reported_instead_of_ready(
    empty_database: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instead of saying that the service is ready, the line names the command to run."""
    monkeypatch.setattr("example_service.migrations.head_revisions", lambda: frozenset({"later"}))
    with caplog.at_level("WARNING"):
        fault = _database_fault(empty_database)
    banner = _banner("http://127.0.0.1:8000", [], fault)

    assert "is not ready, because the database has no schema" in banner
    assert "example-service migrate" in banner
    assert "is ready" not in banner
    assert "The service is not ready" in caplog.text


def test_a_database_that_cannot_be_reached_does_not_prevent_the_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The database may come back later; until then, the banner does not say that it is ready."""
    url = SecretStr("postgresql://me@127.0.0.1:1/payments")

    fault = _database_fault(Settings(environment="test", database_url=url))

    banner = _banner("http://127.0.0.1:8000", [], fault)
    assert "is not ready, because the database cannot be reached yet (" in banner
    assert "The database cannot be reached yet" in caplog.text
