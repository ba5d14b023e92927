"""The findings of the doctor."""

import asyncio
import io
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from example_service.cli.doctor import doctor
from example_service.core.exceptions import SettingsError
from example_service.core.settings import load_settings
from example_service.domain import Domain, Upstream
from example_service.infra.database.database import Database
from example_service.infra.resilience import (
    CircuitBreaker,
    FailureRate,
    circuit_breaker_registry,
)
from example_service.migrations import upgrade
from tests.valkey import running_valkey

pytestmark = pytest.mark.usefixtures("no_breakers_of_other_tests")

TOKEN = "Zk3vq0YJ5b-8sWmR1tXeL9aHcU7dNfGi"


@pytest.fixture
def upstream() -> Iterator[str]:
    """A server that answers every request with 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def examine(
    monkeypatch: pytest.MonkeyPatch,
    upstreams: Sequence[Upstream] = (),
    domain: Domain | None = None,
    **variables: str,
) -> tuple[int, str]:
    """The doctor's exit status and report for these variables, upstreams and domain."""
    domain = domain or Domain(name="shop", upstreams=lambda _: upstreams)
    monkeypatch.setattr("example_service.cli.doctor.enabled_domains", lambda _: [domain])
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    report = io.StringIO()
    return doctor(report), report.getvalue()


def row(report: str, variable: str) -> list[str]:
    """The cells of the first row about a variable."""
    line = next(line for line in report.splitlines() if line.strip().startswith(variable))
    return re.split(r"  +", line.strip())


def test_every_setting_is_shown_with_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table distinguishes given values from defaults, and each setting stays on one line."""
    status, report = examine(monkeypatch, PORT="8080", REDIS__PREFIX="a\tb", ADMIN__TOKEN=TOKEN)

    assert status == 0
    assert row(report, "PORT") == ["PORT", "8080", "environment"]
    assert row(report, "WORKERS") == ["WORKERS", "1", "default"]
    assert row(report, "REDIS__PREFIX") == ["REDIS__PREFIX", r"'a\tb'", "environment"]


def test_an_address_on_which_the_service_cannot_listen_is_a_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A port in use is none: the service itself may be running."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert examine(monkeypatch, PORT=str(taken.getsockname()[1]))[0] == 0

    status, report = examine(monkeypatch, HOST="192.0.2.1")

    assert status == 1
    assert "Cannot listen on '192.0.2.1'" in report


def test_a_directory_that_workers_cannot_share_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`serve` would refuse it. A single worker does not use it."""
    tmp_path.chmod(0o777)
    directory = str(tmp_path)

    assert examine(monkeypatch, PROMETHEUS_MULTIPROC_DIR=directory)[0] == 0
    status, report = examine(monkeypatch, PROMETHEUS_MULTIPROC_DIR=directory, WORKERS="2")

    assert status == 1
    assert "others may write" in row(report, "PROMETHEUS_MULTIPROC_DIR")[1]


def test_an_upstream_whose_name_resolves_to_this_machine_is_a_fault_in_production(
    monkeypatch: pytest.MonkeyPatch, upstream: str
) -> None:
    """The name may be in /etc/hosts, or one of a public service for such names."""
    port = upstream.rpartition(":")[2]
    real = socket.getaddrinfo

    def resolve(host: str, *arguments: Any, **options: Any) -> Any:
        return real("127.0.0.1" if host == "pay.example.com" else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr("example_service.cli.doctor.UPSTREAM_LIMIT_SECONDS", 60.0)
    upstreams = [Upstream("pay", f"http://pay.example.com:{port}")]

    _, in_development = examine(monkeypatch, upstreams)
    status, in_production = examine(monkeypatch, upstreams, ENVIRONMENT="production")

    assert "answers" in row(in_development, "pay")[1]
    assert "resolves to this machine" in row(in_production, "pay")[1]
    assert status == 1


def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report can safely be pasted into a ticket."""
    _, report = examine(monkeypatch, ADMIN__TOKEN=TOKEN)

    assert TOKEN not in report
    assert row(report, "ADMIN__TOKEN")[1] == "********"


def test_what_production_would_refuse_is_not_a_fault_in_development(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The report shows it for information only."""
    status, report = examine(monkeypatch)

    assert status == 0
    assert "Production would refuse" in report
    assert "Faults" not in report
    assert report.endswith("Nothing is wrong.\n")


def test_what_production_refuses_is_a_fault_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report still shows the settings."""
    status, report = examine(monkeypatch, ENVIRONMENT="production")

    assert status == 1
    assert "Faults" in report
    assert "Production would refuse" not in report
    assert row(report, "ENVIRONMENT")[1] == "production"
    assert report.endswith("Something is wrong; see above.\n")


def test_a_misspelt_group_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readable settings are shown, and variables without effect are listed."""
    status, report = examine(monkeypatch, LIMIT__MAX_BODY_BYTES="1")

    assert status == 1
    assert "did you mean LIMITS__MAX_BODY_BYTES?" in report


def test_invalid_settings_leave_nothing_to_examine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command shows the table of problems and exits with status 2."""
    with pytest.raises(SettingsError):
        examine(monkeypatch, PORT="x")


def test_single_underscores_are_pointed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """`LOG_LEVEL` may belong to another program, so it is not a fault."""
    status, report = examine(monkeypatch, LOG_LEVEL="debug")

    assert status == 0
    assert "did you mean LOG__LEVEL?" in report
    assert report.endswith("Nothing else is wrong.\n")


def warehouse_breaker() -> CircuitBreaker:
    """The breaker of a domain, with a rule of its own."""
    rule = FailureRate(window_calls=50, minimum_calls=10)
    return circuit_breaker_registry.get_or_create("warehouse", failure_rate=rule)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CIRCUIT_BREAKERS__WAREHOUSE__FAILURE_RATE__MINIMUM_CALLS", "51"),
        ("CIRCUIT_BREAKERS__WAREHOUSE__FAILURE_RATE__WINDOW_CALLS", "9"),
        ("CIRCUIT_BREAKERS__DATABASE__FAILURE_RATE__WINDOW_CALLS", "19"),
    ],
)
def test_parameters_that_contradict_the_code_are_a_fault(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """The variable is named, with what it contradicts."""
    domain = Domain(name="shop", breakers=(warehouse_breaker,))
    monkeypatch.setenv(variable, value)

    status, report = examine(monkeypatch, domain=domain)

    faults = report.partition("Faults\n")[2]
    assert status == 1
    assert "minimum_calls must be at most window_calls" in row(faults, variable)[1]


@pytest.mark.parametrize(
    ("name", "meant"),
    [("DATABSE", "DATABASE"), ("DATA_BASE", "DATABASE"), ("WAREHOUSES", "WAREHOUSE")],
)
def test_a_misspelt_breaker_is_pointed_out(
    monkeypatch: pytest.MonkeyPatch, name: str, meant: str
) -> None:
    """It is not a fault, because a breaker of that name may be created later."""
    domain = Domain(name="shop", breakers=(warehouse_breaker,))
    monkeypatch.setenv(f"CIRCUIT_BREAKERS__{name}__FAILURE_THRESHOLD", "7")

    status, report = examine(monkeypatch, domain=domain)

    assert status == 0
    assert f"did you mean CIRCUIT_BREAKERS__{meant}?" in report
    assert report.endswith("Nothing else is wrong.\n")


@pytest.mark.parametrize("name", ["DATABASE", "SEARCH"])
def test_other_names_of_breakers_are_not_pointed_out(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """These are names of existing breakers, and names unlike any of them."""
    monkeypatch.setenv(f"CIRCUIT_BREAKERS__{name}__FAILURE_THRESHOLD", "7")

    _, report = examine(monkeypatch)

    assert "did you mean" not in report
    assert report.endswith("Nothing is wrong.\n")


def test_a_file_in_place_of_the_folder_of_a_database_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`migrate` could not create the database there."""
    (tmp_path / "var").touch()
    monkeypatch.setattr("example_service.cli.doctor.UPSTREAM_LIMIT_SECONDS", 60.0)

    status, report = examine(monkeypatch, DATABASE_URL=f"sqlite:///{tmp_path}/var/database")

    assert status == 1
    assert "unable to open database file" in report


@pytest.mark.parametrize("locked", ["var", "var/database.sqlite3"])
@pytest.mark.parametrize("exists", [True, False])
def test_a_database_that_cannot_be_written_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, locked: str, exists: bool
) -> None:
    """SQLite must be able to write its folder and, if it exists, its file."""
    (tmp_path / "var").mkdir()
    file = tmp_path / "var" / "database.sqlite3"
    if exists:
        file.touch()
    monkeypatch.setattr("os.access", lambda path, _: Path(path) != tmp_path / locked)

    status, report = examine(monkeypatch, DATABASE_URL=f"sqlite:///{file}")

    is_fault = exists or locked == "var"
    assert (f"cannot be written: {tmp_path / locked} is read-only" in report) == is_fault
    assert status == (1 if is_fault else 0)


def test_a_database_that_does_not_exist_yet_is_not_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first `make run` creates it; the doctor does not."""
    status, report = examine(monkeypatch)

    assert status == 0
    assert "does not exist yet" in report


def test_a_database_with_the_current_schema_is_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor queries the database and the revision of its schema."""
    asyncio.run(upgrade(load_settings()))

    status, report = examine(monkeypatch)

    assert status == 0
    assert "responds, and its schema is up to date" in report


def test_a_schema_that_is_behind_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The report says what has to be done."""
    file = tmp_path / "empty.sqlite3"
    file.touch()

    async def behind(_: Database) -> str:
        return "the schema is behind; run `example-service migrate`"

    monkeypatch.setattr("example_service.cli.doctor.schema_fault", behind)

    status, report = examine(monkeypatch, DATABASE_URL=f"sqlite:///{file}")

    assert status == 1
    assert "run `example-service migrate`" in report


def test_a_database_that_cannot_be_reached_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report shows its address without the password."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]

    status, report = examine(
        monkeypatch, DATABASE_URL=f"postgresql://me:{TOKEN}@127.0.0.1:{port}/d"
    )

    assert status == 1
    assert f"me:***@127.0.0.1:{port}/d" in report
    assert TOKEN not in report


def test_a_provider_that_answers_is_healthy(monkeypatch: pytest.MonkeyPatch, upstream: str) -> None:
    """Any status will do, because the base URL need not be a page."""
    status, report = examine(monkeypatch, upstreams=[Upstream("shop", upstream)])

    assert status == 0
    assert f"{upstream.removeprefix('http://')} answers" in report


def test_a_provider_that_refuses_connections_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report includes the reason."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}"

    status, report = examine(monkeypatch, upstreams=[Upstream("shop", url)])

    assert status == 1
    assert "refused" in report


def test_a_provider_that_hangs_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor waits for a limited time."""
    monkeypatch.setattr("example_service.cli.doctor.UPSTREAM_LIMIT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        url = f"http://127.0.0.1:{hanging.getsockname()[1]}"
        status, report = examine(monkeypatch, upstreams=[Upstream("shop", url)])

    assert status == 1
    assert "127.0.0.1" in report


@pytest.mark.parametrize(("is_needed", "expected"), [(True, 1), (False, 0)])
def test_an_upstream_without_a_url_is_a_fault_if_it_is_required(
    is_needed: bool, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The domain says whether it is required, and what replaces it otherwise."""
    missing = Upstream("shop", None, without_url="the corner shop", is_needed=is_needed)

    status, report = examine(monkeypatch, upstreams=[missing])

    assert status == expected
    assert "shop  the corner shop" in report


def test_without_a_store_the_fleet_is_not_mentioned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service on one machine needs no store."""
    _, report = examine(monkeypatch)

    assert "Fleet" not in report


@pytest.mark.integration
def test_a_store_that_can_be_written_is_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report shows its address without the password."""
    with running_valkey("--requirepass", "secret") as server:
        url = f"redis://:secret@127.0.0.1:{server.port}/0"
        status, report = examine(monkeypatch, ENVIRONMENT="test", REDIS__URL=url)

    assert status == 0, report
    assert row(report, f"redis://127.0.0.1:{server.port}/0")[1] == "responds, and is writable"
    assert row(report, "REDIS__URL")[1] == "********"


@pytest.mark.integration
@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (("--requirepass", "secret"), "AuthenticationError"),
        (("--maxmemory", "1"), "OOM|OutOfMemory"),
    ],
)
def test_a_store_that_cannot_be_written_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], fault: str
) -> None:
    """The report says why."""
    with running_valkey(*options) as server:
        status, report = examine(monkeypatch, ENVIRONMENT="test", REDIS__URL=server.url)

    assert status == 1
    assert re.search(fault, row(report, server.url)[1]), report


@pytest.mark.integration
@pytest.mark.parametrize(("channels", "status"), [("&{example-service}:changes:*", 0), ("", 1)])
def test_a_store_that_cannot_be_listened_to_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, channels: str, status: int
) -> None:
    """Without a rule for channels, a server lets a new user use none."""
    rules = f"on >secret ~{{example-service}}:* {channels} +@all -@dangerous"
    with running_valkey("--user", "service", *rules.split()) as server:
        url = f"redis://service:secret@127.0.0.1:{server.port}/0"
        answer, report = examine(monkeypatch, ENVIRONMENT="test", REDIS__URL=url)

    assert answer == status, report
    shown = row(report, f"redis://127.0.0.1:{server.port}/0")[1]
    assert ("NoPermission" in shown) is (status == 1)


def test_a_store_that_cannot_be_reached_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service would start anyway, but each process would work on its own."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{taken.getsockname()[1]}/0"
        status, report = examine(monkeypatch, ENVIRONMENT="test", REDIS__URL=url)

    assert status == 1
    assert "ConnectionError" in row(report, url)[1]
