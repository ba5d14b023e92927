"""The messages and exit statuses of `example-service migrate`."""

import io
import socket

import pytest

from example_service.cli import main
from example_service.cli.migrate import migrate
from example_service.core.settings import Settings
from example_service.migrations import MigrationError, Revisions
from tests.databases import settings_for


@pytest.mark.parametrize(
    ("before", "shown"),
    [
        (frozenset(), "Migrated {} from nothing to a1, b2.\n"),
        (frozenset({"a1"}), "Migrated {} from a1 to a1, b2.\n"),
        (frozenset({"a1", "b2"}), "The schema of {} is up to date (a1, b2).\n"),
    ],
)
def test_it_reports_what_it_did(
    before: Revisions, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It prints the revisions before and after, or that nothing was missing."""

    async def upgrade(_: Settings) -> tuple[Revisions, Revisions]:
        return before, frozenset({"a1", "b2"})

    monkeypatch.setattr("example_service.cli.migrate.upgrade", upgrade)
    output = io.StringIO()

    assert migrate(settings_for("sqlite:///some.sqlite3"), output) == 0

    assert output.getvalue() == shown.format("sqlite+aiosqlite:///some.sqlite3")


@pytest.mark.integration
def test_a_password_is_never_shown(
    postgres_settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Messages of success and of failure hide it."""
    right = postgres_settings.database_url.get_secret_value().replace("@", ":secret@")
    wrong = right.replace("/migrated", "/nowhere")
    statuses = []
    for url in (right, wrong):
        monkeypatch.setenv("DATABASE_URL", url)
        statuses.append(main(["migrate"]))

    output = capsys.readouterr()
    assert statuses == [0, 1]
    assert "postgres:***@" in output.out
    assert 'database "nowhere" does not exist' in output.err
    assert "secret" not in output.out + output.err


def test_a_database_that_cannot_be_reached_is_one_line_on_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line names the database and the reason, and the exit status is 1."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        monkeypatch.setenv("DATABASE_URL", f"postgresql://me:secret@127.0.0.1:{port}/payments")
        assert main(["migrate"]) == 1

    output = capsys.readouterr()
    (line,) = output.err.splitlines()
    assert line.startswith(
        f"The database postgresql+asyncpg://me:***@127.0.0.1:{port}/payments could not be migrated:"
    )
    assert "refused" in line or "Connect call failed" in line
    assert (output.out, "secret" in line) == ("", False)


def test_a_silent_database_gets_a_readable_reason() -> None:
    """The exception of the timeout has no text of its own."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://me@127.0.0.1:{silent.getsockname()[1]}/payments?sslmode=disable"
        limits = settings_for(url).database.model_copy(update={"connect_timeout_seconds": 0.01})
        settings = settings_for(url).model_copy(update={"database": limits})
        with pytest.raises(MigrationError, match=r"could not be migrated: no response in time$"):
            migrate(settings, io.StringIO())


@pytest.mark.parametrize("variables", [{"DATABASE_URL": "mysql://h/d"}, {"WORKERS": "many"}])
def test_unusable_settings_are_a_table_on_standard_error(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit status is 2, and no connection is opened."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert main(["migrate"]) == 2

    output = capsys.readouterr()
    assert (output.out, "PROBLEM" in output.err) == ("", True)


@pytest.mark.parametrize("option", ["sslmode=verify-full", "sslrootcert=system"])
def test_a_variable_that_breaks_tls_verification_is_named(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The driver's own message would make operators look for the fault in the server."""
    monkeypatch.setenv("DATABASE_URL", f"postgresql://payments@database.test/payments?{option}")
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file.pem")
    monkeypatch.setenv("NO_PROXY", "[::1]")

    assert main(["migrate"]) == 2

    said = capsys.readouterr().err
    assert "SSL_CERT_FILE " in said
    assert "NO_PROXY" not in said


def test_the_variable_is_no_problem_if_the_database_does_not_need_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SQLite does not need it, nor does a server that is not verified against the system's CAs."""
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file.pem")

    assert main(["migrate"]) == 0
