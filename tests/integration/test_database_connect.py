"""Connecting to a real PostgreSQL: hosts, TLS and the environment of the process."""

import asyncio
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text

from example_service.infra.database.database import open_database
from example_service.infra.database.exceptions import DatabaseUnavailableError
from tests.databases import PostgresDatabases, settings_for
from tests.pgbouncer import running_pgbouncer
from tests.ports import lasting_port
from tests.postgres import running_postgres
from tests.real_parts import program
from tests.service_process import DEADLINE_SECONDS
from tests.tcp_proxy import TCPProxy

pytestmark = pytest.mark.integration


async def ask(url: str, question: str = "SELECT 1") -> object:
    """Query the database at this URL."""
    async with open_database(settings_for(url)) as database:
        return await database.run(lambda session: session.scalar(text(question)))


async def test_hosts_are_tried_in_order(postgres_databases: PostgresDatabases) -> None:
    """A host that refuses or stays silent leads to the next within its time limit."""
    port = postgres_databases.server.port
    started = time.monotonic()
    async with TCPProxy(port).listening() as silent:
        silent.fall_silent()
        hosts = f"127.0.0.1:{lasting_port()},127.0.0.1:{silent.port},127.0.0.1:{port}"
        assert await ask(f"postgresql://postgres@{hosts}/postgres?sslmode=disable") == 1

    assert 2.0 <= time.monotonic() - started < 30.0


async def test_a_host_that_accepts_writes_is_found(
    postgres_databases: PostgresDatabases,
) -> None:
    """A read-only server is skipped; if there is no other, that is an outage."""
    with running_postgres() as standby:
        administrator = await asyncpg.connect(standby.url)
        await administrator.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        await administrator.execute("SELECT pg_reload_conf()")
        async with asyncio.timeout(DEADLINE_SECONDS):
            # The server reports the change of a parameter to its clients.
            while administrator.get_settings().default_transaction_read_only != "on":
                await administrator.execute("SELECT 1")
        await administrator.close()
        only = f"postgresql://postgres@127.0.0.1:{standby.port}"
        primary = f"127.0.0.1:{postgres_databases.server.port}"

        url = f"{only},{primary}/postgres?target_session_attrs=read-write"
        assert await ask(url, "SHOW port") == str(postgres_databases.server.port)
        with pytest.raises(DatabaseUnavailableError, match="read_write"):
            await ask(f"{only}/postgres?target_session_attrs=read-write")


async def test_files_below_home_are_ignored(
    postgres_databases: PostgresDatabases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken certificates that libpq would read below HOME prevent no connection."""
    folder = tmp_path / ".postgresql"
    folder.mkdir()
    for name in ("postgresql.crt", "postgresql.key", "root.crt", "root.crl"):
        (folder / name).write_text("cannot be used")
    monkeypatch.setenv("HOME", str(tmp_path))

    assert await ask(postgres_databases.server.url) == 1


@pytest.fixture(scope="module")
def encrypted(postgres_databases: PostgresDatabases) -> Iterator[tuple[int, Path]]:
    """The port of a TLS proxy to the server, and the file with the proxy's certificate."""
    with tempfile.TemporaryDirectory(prefix="certificate-") as name:
        file = Path(name) / "server.pem"
        command = [
            *(
                program("openssl"),
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ),
            *("-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(file), "-out", f"{file}.crt"),
        ]
        subprocess.run(command, check=True, capture_output=True)
        with file.open("ab") as both:
            both.write(Path(f"{file}.crt").read_bytes())
        Path(name).chmod(0o755)
        file.chmod(0o644)
        with running_pgbouncer(postgres_databases.server, "transaction", certificate=file) as port:
            yield port, file


@pytest.mark.parametrize(
    "options",
    [
        "",
        "&sslmode=prefer",
        "&sslmode=require",
        "&ssl=true",
        "&channel_binding=require",
        "&sslmode=verify-ca&sslrootcert=CERTIFICATE",
        "&sslmode=verify-full&sslrootcert=CERTIFICATE",
    ],
)
async def test_every_mode_that_may_encrypt_gets_in(
    options: str, encrypted: tuple[int, Path]
) -> None:
    """The server behind this port refuses unencrypted connections."""
    port, certificate = encrypted
    url = f"postgresql://postgres@localhost:{port}/postgres?pgbouncer=true{options}"

    assert await ask(url.replace("CERTIFICATE", str(certificate))) == 1


@pytest.mark.parametrize(
    ("host", "options", "reason"),
    [
        ("localhost", "&sslmode=disable", "SSL required"),
        ("localhost", "&sslmode=verify-full", "certificate verify failed"),
        ("localhost", "&sslmode=verify-full&sslrootcert=system", "certificate verify failed"),
        ("127.0.0.1", "&sslmode=verify-full&sslrootcert=CERTIFICATE", "certificate verify failed"),
    ],
)
async def test_a_server_that_cannot_be_verified_is_not_used(
    host: str, options: str, reason: str, encrypted: tuple[int, Path]
) -> None:
    """A certificate of an unknown authority or another name is an outage with a reason."""
    port, certificate = encrypted
    url = f"postgresql://postgres@{host}:{port}/postgres?pgbouncer=true{options}"
    with pytest.raises(DatabaseUnavailableError, match=reason):
        await ask(url.replace("CERTIFICATE", str(certificate)))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"R" + struct.pack("!II", 8, 99), "unsupported authentication method"),
        (b"E" + struct.pack("!I", 20) + b"SFATAL\0Mnot me\0\0\0", "not me"),
        (b"R" + struct.pack("!II", 8, 0) + b"Z" + struct.pack("!I", 5) + b"I", "server_version"),
    ],
    ids=["unknown way of logging in", "error without a code", "nothing about itself"],
)
async def test_what_does_not_speak_as_a_server_should_means_unavailable(
    answer: bytes, said: str, postgres_databases: PostgresDatabases
) -> None:
    """A proxy that is set up wrongly, say; the next host is tried, and the log says what it was."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1024)
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(respond, "127.0.0.1", 0) as impostor:
        host = f"127.0.0.1:{impostor.sockets[0].getsockname()[1]}"
        with pytest.raises(DatabaseUnavailableError, match=f"{host} cannot be used.*{said}"):
            await ask(f"postgresql://postgres@{host}/postgres?sslmode=disable")
        both = f"{host},127.0.0.1:{postgres_databases.server.port}"
        assert await ask(f"postgresql://postgres@{both}/postgres?sslmode=disable") == 1
