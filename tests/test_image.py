"""What is shipped: Dockerfile, .dockerignore and compose file agree with the project.

That the image can be built, and does what it should, is seen in tests/integration/test_image.py.
"""

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from example_service.core.settings import Settings
from example_service.core.settings.variables import variables
from example_service.server.process import CLEAN_UP_SECONDS

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
COMPOSE: dict[str, Any] = YAML(typ="safe").load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
VARIABLES = {variable.name: variable for variable in variables(Settings, ["payment"])}
LOOKS_SECRET = re.compile("PASSWORD|TOKEN|SECRET|KEY")


def instructions(name: str) -> list[str]:
    """The arguments of every instruction of that name in the Dockerfile."""
    return re.findall(rf"^{name} +(.+?) *$", DOCKERFILE, re.MULTILINE)


# --- the Dockerfile


def test_image_has_the_preferred_python() -> None:
    """What is shipped runs on the Python on which every test runs."""
    preferred = (ROOT / ".python-version").read_text().strip()

    assert [image for image in instructions("FROM") if not image.startswith("base")] == [
        f"python:{preferred}-slim AS base"
    ]


def test_image_runs_as_a_user_known_by_number() -> None:
    """An orchestrator that refuses root cannot tell who a name is."""
    [user] = instructions("USER")

    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)


def test_signals_reach_the_service() -> None:
    """No shell, which would keep them to itself, stands before the program."""
    assert instructions("ENTRYPOINT") == ['["python", "-m", "example_service"]']
    assert instructions("CMD") == ['["serve"]']


def test_image_installs_nothing_without_a_hash() -> None:
    """All that is fetched is in the lock of the runtime, and is installed as it was built."""
    [installation] = re.findall(r"\bpip\b[^&\n]+\binstall\b[^&\n]+", DOCKERFILE)

    assert "--require-hashes" in installation
    assert "--only-binary=:all:" in installation
    assert installation.split()[-2:] == ["--requirement", "/requirements.lock"]


def test_build_is_given_nothing_but_what_it_copies() -> None:
    """Secrets, data, environments and history stay away from the builder, whatever their names."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    copied = {argument.split()[0] for argument in instructions("COPY(?! --from)")}
    mounted = set(re.findall(r"--mount=type=bind,source=([^, ]+)", DOCKERFILE))

    assert patterns[0] == "*"
    assert {name[1:] for name in patterns if name.startswith("!")} == copied | mounted
    assert copied | mounted == {"example_service", "requirements.lock"}


# --- the compose file


def interpolations(text: str) -> list[tuple[str, str]]:
    """The variables that a text asks for, each with what stands for it when it is not set."""
    return re.findall(r"\$\{(\w+)([^}]*)\}", text)


def test_compose_sets_only_settings_that_exist() -> None:
    """A renamed setting is renamed here, too, and none that the image needs set is left out."""
    given = SERVICES["service"]["environment"]

    assert given.keys() <= VARIABLES.keys()
    assert {"DATABASE_URL", "HTTP__ALLOWED_HOSTS"} <= given.keys()


@pytest.mark.parametrize("service", SERVICES)
def test_compose_holds_no_secret_and_no_default_for_one(service: str) -> None:
    """Each secret comes from outside, and where one is needed and not given nothing starts."""
    for name, value in SERVICES[service].get("environment", {}).items():
        is_secret = VARIABLES[name].is_secret if name in VARIABLES else LOOKS_SECRET.search(name)
        needed = [asked for asked, _ in interpolations(value or "")]
        assert not is_secret or value is None or any(map(LOOKS_SECRET.search, needed)), name
        for asked, otherwise in interpolations(value or ""):
            assert not LOOKS_SECRET.search(asked) or otherwise.startswith(":?"), name


def test_compose_runs_the_migration_before_the_service() -> None:
    """One image does both; the service waits for the end of the one, and for the database."""
    migrate, service = SERVICES["migrate"], SERVICES["service"]

    assert migrate["image"] == service["image"]
    assert migrate["environment"] == service["environment"]
    assert migrate["command"] == ["migrate"]
    assert "restart" not in migrate
    assert migrate["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert service["depends_on"] == {
        "postgres": {"condition": "service_healthy"},
        "migrate": {"condition": "service_completed_successfully"},
    }


@pytest.mark.parametrize("name", ["migrate", "service"])
def test_compose_gives_the_image_no_more_rights_than_it_needs(name: str) -> None:
    """Nothing can be written but temporary files, and nothing be gained."""
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]  # noqa: S108 - a place in the container
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_compose_lets_a_stop_take_as_long_as_it_may() -> None:
    """The service is not killed while it drains: several workers may take the longest."""
    shutdown = Settings(environment="production").shutdown
    longest = shutdown.drain_seconds + shutdown.grace_seconds + 2 * CLEAN_UP_SECONDS

    assert float(SERVICES["service"]["stop_grace_period"].removesuffix("s")) > longest


def test_compose_publishes_nothing_beyond_this_machine() -> None:
    """Whoever wants the service on other interfaces says so."""
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]

    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
