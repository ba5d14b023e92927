"""The real image, the compose file and the page about them, with a real PostgreSQL.

Without compose, a test runs the image with the rights that docker-compose.yml gives it and without
an init process. That is the harder case: the service is process 1 and gets the signals itself.
"""

import asyncio
import json
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import httpx
import pytest

from tests.docker import COMMAND_SECONDS, Docker, running_docker
from tests.docs.pages import ROOT, blocks_of
from tests.docs.walk import ADDRESS
from tests.ports import lasting_port
from tests.postgres import PostgresServer, running_postgres
from tests.service_process import DEADLINE_SECONDS, is_ready, refuses_connections, wait_until

# Marked as integration tests, too, so that deselecting those deselects these.
pytestmark = [pytest.mark.integration, pytest.mark.image]

IMAGE = "example-service"
HARDENED = (
    *("--read-only", "--tmpfs", "/tmp"),  # noqa: S108 - a place in the container
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
)
RATES = "/api/v1/exchange-rates/EUR"
PAYMENTS = "/api/v1/payments"
PRODUCTION = {
    "API__KEYS": f"shop:{'4b' * 32}",
    "HTTP__ALLOWED_HOSTS": "api.shop.com",
    "PAYMENT_PROVIDER__BASE_URL": "https://api.payment-provider.com",
}
PAYMENT = {"amount": 1250, "currency": "EUR", "customer_id": "customer-7"}


@pytest.fixture(scope="module")
def docker() -> Iterator[Docker]:
    """Docker with the image built from this repository."""
    with running_docker() as docker:
        docker("build", "--tag", IMAGE, ".")
        yield docker


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A server for all tests of this module."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def database_url(postgres: PostgresServer) -> str:
    """The URL of an empty database in a form that production accepts."""
    name = f"image_{secrets.token_hex(4)}"

    async def create() -> None:
        connection = await asyncpg.connect(postgres.url)
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()

    asyncio.run(create())
    # The server accepts any user with any password.
    return f"postgresql://postgres:{secrets.token_urlsafe()}@127.0.0.1:{postgres.port}/{name}"


class Container:
    """A container that runs the service in the background."""

    def __init__(self, docker: Docker, *words: str, **settings: str) -> None:
        self.port = lasting_port()
        self._docker = docker
        environment = {"PORT": str(self.port), **settings}
        given = [f"--env={name}={value}" for name, value in environment.items()]
        self.id = docker("run", "--detach", *HARDENED, *given, IMAGE, *words)

    @property
    def url(self) -> str:
        """The URL of the service, once it serves."""
        url = f"http://127.0.0.1:{self.port}"
        wait_until(lambda: not refuses_connections(url) or self._has_ended())
        assert not self._has_ended(), self.log
        return url

    @property
    def log(self) -> str:
        """Its log."""
        done = self._docker.attempt("logs", self.id)
        return done.stdout + done.stderr

    def execute(self, *command: str) -> str:
        """Run a program in the container that must succeed, and return its output."""
        return self._docker("exec", self.id, *command)

    def terminate(self) -> None:
        """Send the signal to stop, without waiting for the end."""
        self._docker("kill", "--signal", "TERM", self.id)

    def status(self) -> int:
        """Its exit status, once it has stopped."""
        return int(self._docker("wait", self.id))

    def remove(self) -> None:
        """Kill and remove the container."""
        self._docker("rm", "--force", self.id)

    def _has_ended(self) -> bool:
        return self._docker("inspect", "--format", "{{.State.Running}}", self.id) == "false"


@pytest.fixture
def start(docker: Docker) -> Iterator[Callable[..., Container]]:
    """Start containers, and remove them after the test."""
    containers: list[Container] = []

    def start_container(*words: str, **settings: str) -> Container:
        containers.append(Container(docker, *words, **settings))
        return containers[-1]

    yield start_container
    for container in containers:
        container.remove()


@pytest.fixture
def migrated_url(docker: Docker, database_url: str) -> str:
    """A database with the schema that the image needs."""
    migrate(docker, database_url)
    return database_url


def migrate(docker: Docker, database_url: str) -> None:
    """Run the migration and check that it succeeds."""
    settings = ["--env=ENVIRONMENT=development", f"--env=DATABASE_URL={database_url}"]
    docker("run", "--rm", *HARDENED, *settings, IMAGE, "migrate")


def health_check(docker: Docker) -> list[str]:
    """The health check of the image: the program and its arguments."""
    [image] = json.loads(docker("inspect", "--type", "image", IMAGE))
    test: list[str] = image["Config"]["Healthcheck"]["Test"]
    assert test[0] == "CMD"
    return test[1:]


# --- contents


def test_image_says_how_it_is_run(docker: Docker) -> None:
    """Inspecting it shows a numeric user, the port, the stop signal and the health check."""
    [image] = json.loads(docker("inspect", "--type", "image", IMAGE))
    config = image["Config"]

    assert config["User"] == "10001:10001"
    assert list(config["ExposedPorts"]) == ["8000/tcp"]
    assert config["StopSignal"] == "SIGTERM"
    assert (config["Entrypoint"], config["Cmd"]) == (["python", "-m", "example_service"], ["serve"])
    assert {"ENVIRONMENT=production", "HOST=0.0.0.0"} <= set(config["Env"])
    assert health_check(docker)[0] == "python"


def test_image_has_the_package_with_its_bytecode_and_no_installer(docker: Docker) -> None:
    """It has no other file of the project, and nothing is compiled or installed later."""
    look = (
        "import example_service.cli, fastapi, os, importlib.util;"
        "print(os.listdir('.'), os.path.exists(example_service.cli.__cached__),"
        "os.path.exists(fastapi.__cached__), importlib.util.find_spec('pip'))"
    )

    seen = docker("run", "--rm", "--entrypoint", "python", IMAGE, "-c", look)

    assert seen == "['example_service'] True True None"


# --- settings


def test_image_does_not_start_with_unsafe_settings(docker: Docker) -> None:
    """Production settings that are missing are listed in a table; the exit status is 2."""
    refused = docker.attempt(
        "run", "--rm", *HARDENED, "--env=ADMIN__TOKEN=changeme-changeme", IMAGE
    )

    assert (refused.returncode, refused.stdout) == (2, "")
    assert re.findall(r"^  ([A-Z_]+) ", refused.stderr, re.MULTILINE) == [
        "VARIABLE",
        "DATABASE_URL",
        "HTTP__ALLOWED_HOSTS",
        "ADMIN__TOKEN",
        "API__KEYS",
        "PAYMENT_PROVIDER__BASE_URL",
    ]
    assert "Traceback" not in refused.stderr
    assert "changeme" not in refused.stderr


def test_image_serves_with_the_settings_of_production(
    start: Callable[..., Container], migrated_url: str
) -> None:
    """Probes may use an IP address, all other requests only an allowed host name."""
    service = start(DATABASE_URL=migrated_url, SHUTDOWN__DRAIN_SECONDS="0", **PRODUCTION)
    url = service.url

    wait_until(lambda: is_ready(url))
    assert httpx.get(f"{url}/problems").status_code == 400
    assert httpx.get(f"{url}/problems", headers={"Host": "api.shop.com"}).status_code == 200
    service.terminate()
    assert service.status() == 0


# --- migration


def test_migration_succeeds_however_often_it_runs(docker: Docker, database_url: str) -> None:
    """Simultaneous runs all succeed, and so does a later one."""
    with ThreadPoolExecutor() as executor:
        list(executor.map(lambda _: migrate(docker, database_url), range(3)))

    migrate(docker, database_url)


def test_service_is_not_ready_before_the_migration(
    docker: Docker, start: Callable[..., Container], database_url: str
) -> None:
    """It starts and becomes ready after the migration without a restart."""
    service = start(ENVIRONMENT="development", DATABASE_URL=database_url)
    url = service.url

    assert httpx.get(f"{url}/health/live").status_code == 200
    assert httpx.get(f"{url}/health/ready").status_code == 503
    migrate(docker, database_url)
    wait_until(lambda: is_ready(url))


# --- service


def test_service_runs_without_rights_on_a_read_only_root(
    docker: Docker, start: Callable[..., Container], migrated_url: str
) -> None:
    """It has no capabilities, writes only to /tmp, and its health check passes."""
    service = start(ENVIRONMENT="development", DATABASE_URL=migrated_url)
    url = service.url
    rights = "print(*(line for line in open('/proc/1/status') if line[:4] in ('Uid:', 'CapE')))"
    write = "import sys; open(sys.argv[1] + '/written', 'w').close()"

    wait_until(lambda: is_ready(url))
    service.execute(*health_check(docker))
    assert service.execute("python", "-c", rights).split() == [
        *("Uid:", "10001", "10001", "10001", "10001"),
        *("CapEff:", "0000000000000000"),
    ]
    service.execute("python", "-c", write, "/tmp")  # noqa: S108 - a place in the container
    for folder in ("/", "/app", "/venv", "/var/tmp"):  # noqa: S108 - a place in the container
        refused = docker.attempt("exec", service.id, "python", "-c", write, folder)
        assert "Read-only file system" in refused.stderr, folder


@pytest.mark.parametrize("workers", [1, 2])
def test_service_accepts_payments_and_ends_with_status_0(
    start: Callable[..., Container], migrated_url: str, workers: int
) -> None:
    """The image includes the sandbox, and metrics of its workers are added up."""
    service = start(ENVIRONMENT="development", DATABASE_URL=migrated_url, WORKERS=str(workers))
    url = service.url

    answers = [
        httpx.post(url + PAYMENTS, json=PAYMENT, headers={"Idempotency-Key": f"order-{number}"})
        for number in range(4)
    ]
    figures = httpx.get(f"{url}/metrics").text
    service.terminate()

    assert [(answer.status_code, answer.json()["status"]) for answer in answers] == [
        (201, "succeeded")
    ] * 4
    assert re.search(r'http_requests_total{.*route="/api/v1/payments".*} 4\.0', figures)
    assert service.log.count("Started server process") == workers
    assert service.status() == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_signal_to_stop_loses_no_request(
    start: Callable[..., Container], migrated_url: str, workers: int
) -> None:
    """Readiness turns 503, the port closes, and the request in flight is answered."""
    service = start(
        ENVIRONMENT="development",
        DATABASE_URL=migrated_url,
        WORKERS=str(workers),
        PAYMENT_PROVIDER__TIMEOUT_SECONDS="30",
        SHUTDOWN__DRAIN_SECONDS="1",
    )
    url = service.url
    httpx.put(f"{url}/sandbox/mode", json={"mode": "slow", "latency_seconds": 4})

    with ThreadPoolExecutor() as executor:
        request = executor.submit(httpx.get, url + RATES, timeout=DEADLINE_SECONDS)
        wait_until(
            lambda: 'calls_in_flight{name="payment"} 1.0' in httpx.get(f"{url}/metrics").text
        )
        service.terminate()
        wait_until(lambda: not is_ready(url))
        wait_until(lambda: refuses_connections(url))
        assert not request.done()
        assert request.result().status_code == 200
    assert service.status() == 0


# --- compose file


class Composition:
    """The project that docker-compose.yml describes, without anyone's `.env`."""

    def __init__(self, docker: Docker, no_variables: Path, **variables: str) -> None:
        self.port = lasting_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._docker = docker
        self._project = f"image{secrets.token_hex(4)}"
        self._no_variables = str(no_variables)
        self._variables = {"PORT": str(self.port), **variables}

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `docker compose`."""
        options = ("--env-file", self._no_variables, "--project-name", self._project)
        return self._docker.attempt("compose", *options, *words, variables=self._variables)

    def exit_status(self, service: str) -> int:
        """The exit status of a service's container."""
        container = self("ps", "--all", "--quiet", service).stdout.strip()
        return int(self._docker("inspect", "--format", "{{.State.ExitCode}}", container))


@pytest.fixture
def compose(docker: Docker, tmp_path: Path) -> Iterator[Callable[..., Composition]]:
    """Create projects with these variables, and remove them after the test."""
    projects: list[Composition] = []
    no_variables = tmp_path / "empty.env"
    no_variables.touch()

    def prepare(**variables: str) -> Composition:
        projects.append(Composition(docker, no_variables, **variables))
        return projects[-1]

    yield prepare
    for project in projects:
        project("down", "--volumes", "--timeout", "0")


def test_compose_starts_nothing_without_a_password(compose: Callable[..., Composition]) -> None:
    """The error names the missing variable and where to read about it."""
    refused = compose()("up", "--detach", "--no-build")

    assert refused.returncode != 0
    assert "POSTGRES_PASSWORD" in refused.stderr
    assert "see docs/deployment.md" in refused.stderr


def test_compose_serves_from_an_empty_volume(compose: Callable[..., Composition]) -> None:
    """Database, migration and service start in that order, and the service stops cleanly."""
    project = compose(POSTGRES_PASSWORD=secrets.token_urlsafe())

    started = project("up", "--detach", "--no-build")
    assert started.returncode == 0, started.stderr
    wait_until(lambda: not refuses_connections(project.url) and is_ready(project.url))
    paid = httpx.post(project.url + PAYMENTS, json=PAYMENT, headers={"Idempotency-Key": "order-1"})
    again = project("run", "--rm", "migrate")
    project("stop", "service")

    assert (paid.status_code, paid.json()["status"]) == (201, "succeeded")
    assert project.exit_status("migrate") == 0
    assert again.returncode == 0, again.stderr
    assert project.exit_status("service") == 0


def test_compose_keeps_production_from_unsafe_settings(
    compose: Callable[..., Composition],
) -> None:
    """The migration refuses missing settings, so the service is not started."""
    project = compose(POSTGRES_PASSWORD=secrets.token_urlsafe(), ENVIRONMENT="production")

    refused = project("up", "--detach", "--no-build")

    assert refused.returncode != 0
    assert project.exit_status("migrate") == 2
    assert "HTTP__ALLOWED_HOSTS" in project("logs", "migrate").stdout
    assert refuses_connections(project.url)


# --- page


def test_commands_of_the_page_work_as_shown(
    docker: Docker, database_url: str, tmp_path: Path
) -> None:
    """Run in a clone with production settings, each command prints what the page shows.

    Requests are left out because tests/docs sends them, to a service outside a container.
    """
    shutil.copytree(ROOT / "example_service", tmp_path / "example_service")
    for name in (".dockerignore", "Dockerfile", "docker-compose.yml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    # A daemon started for the tests has no network from which a build could install packages.
    override = tmp_path / "docker-compose.override.yml"
    override.write_text("services: {migrate: {build: {network: host}}}\n")
    settings = {"DATABASE_URL": database_url, "PORT": str(lasting_port()), **PRODUCTION}
    lines = "".join(f"{name}={value}\n" for name, value in settings.items())
    (tmp_path / "production.env").write_text(lines)
    path = os.pathsep.join([str(docker.folder), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "PORT": str(lasting_port())}

    def type_in(commands: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-e", "-c", commands],
            cwd=tmp_path,
            env=environment,
            timeout=COMMAND_SECONDS,
            capture_output=True,
            text=True,
            check=False,
        )

    try:
        for block in blocks_of(ROOT / "docs" / "deployment.md"):
            if block.role in ("containers", "commands") and ADDRESS not in block.text:
                done = type_in(block.text)
                assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
                assert block.output is None or done.stdout == block.output.text, block
    finally:
        type_in("docker rm --force example-service; docker compose down --volumes --timeout 0")
