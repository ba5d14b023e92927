"""A real PgBouncer in front of a real PostgreSQL, for tests."""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ports import lasting_port
from tests.postgres import DEADLINE_SECONDS, PostgresServer, unprivileged
from tests.real_parts import program


@contextmanager
def running_pgbouncer(
    server: PostgresServer,
    mode: str,
    *,
    server_connections: int = 2,
    certificate: Path | None = None,
) -> Iterator[int]:
    """Run a PgBouncer with Debian's configuration, except for its mode, and yield its port.

    Args:
        server: The PostgreSQL server behind it.
        mode: `session` or `transaction`.
        server_connections: The number of connections to the server that clients share.
        certificate: A file with a key and a certificate; if given, clients must use TLS.
    """
    pgbouncer = program("pgbouncer")
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
    port = lasting_port()
    configuration = folder / "pgbouncer.ini"
    configuration.write_text(
        f"""
        [databases]
        * = host=127.0.0.1 port={server.port} user=postgres
        [pgbouncer]
        listen_addr = 127.0.0.1
        listen_port = {port}
        unix_socket_dir =
        auth_type = any
        pool_mode = {mode}
        default_pool_size = {server_connections}
        """.replace("\n        ", "\n")
    )
    if certificate is not None:
        with configuration.open("a") as more:
            more.write("client_tls_sslmode = require\n")
            more.write(f"client_tls_key_file = {certificate}\n")
            more.write(f"client_tls_cert_file = {certificate}\n")
    folder.chmod(0o755)
    process = subprocess.Popen(
        [pgbouncer, "-q", configuration],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **unprivileged(),
    )
    try:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not _listens(port):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield port
    finally:
        process.terminate()
        process.wait(DEADLINE_SECONDS)
        shutil.rmtree(folder)


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
