"""The Dockerfile, .dockerignore and compose file agree with the project.

tests/integration/test_image.py builds the image and runs it.
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
    """The arguments of every instruction with this name in the Dockerfile."""
    return re.findall(rf"^{name} +(.+?) *$", DOCKERFILE, re.MULTILINE)


# --- the Dockerfile


def test_image_has_the_preferred_python() -> None:
    """The image runs on the same version of Python as the tests."""
    preferred = (ROOT / ".python-version").read_text().strip()

    assert [image for image in instructions("FROM") if not image.startswith("base")] == [
        f"python:{preferred}-slim AS base"
    ]


def test_image_runs_as_a_user_known_by_number() -> None:
    """An orchestrator that refuses root cannot resolve a user name."""
    [user] = instructions("USER")

    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)


def test_signals_reach_the_service() -> None:
    """The program is not started through a shell, which would not pass them on."""
    assert instructions("ENTRYPOINT") == ['["python", "-m", "example_service"]']
    assert instructions("CMD") == ['["serve"]']


def test_image_installs_nothing_without_a_hash() -> None:
    """Every download is in the runtime lock, and is installed as a wheel."""
    [installation] = re.findall(r"\bpip\b[^&\n]+\binstall\b[^&\n]+", DOCKERFILE)

    assert "--require-hashes" in installation
    assert "--only-binary=:all:" in installation
    assert installation.split()[-2:] == ["--requirement", "/requirements.lock"]


def test_build_context_contains_only_what_is_copied() -> None:
    """Secrets, data, environments and history do not reach the builder, whatever their names."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    copied = {argument.split()[0] for argument in instructions("COPY(?! --from)")}
    mounted = set(re.findall(r"--mount=type=bind,source=([^, ]+)", DOCKERFILE))

    assert patterns[0] == "*"
    assert {name[1:] for name in patterns if name.startswith("!")} == copied | mounted
    assert copied | mounted == {"example_service", "requirements.lock"}


# --- the compose file


def interpolations(text: str) -> list[tuple[str, str]]:
    """The variables in a text, with the defaults for unset ones."""
    return re.findall(r"\$\{(\w+)([^}]*)\}", text)


def test_compose_sets_only_settings_that_exist() -> None:
    """Renamed settings are noticed, and so are missing settings that the image requires."""
    given = SERVICES["service"]["environment"]

    assert given.keys() <= VARIABLES.keys()
    assert {"DATABASE_URL", "HTTP__ALLOWED_HOSTS"} <= given.keys()


@pytest.mark.parametrize("service", SERVICES)
def test_compose_contains_no_secret_and_no_default_for_one(service: str) -> None:
    """Secrets come from outside, and nothing starts if a required one is missing."""
    for name, value in SERVICES[service].get("environment", {}).items():
        is_secret = VARIABLES[name].is_secret if name in VARIABLES else LOOKS_SECRET.search(name)
        needed = [asked for asked, _ in interpolations(value or "")]
        assert not is_secret or value is None or any(map(LOOKS_SECRET.search, needed)), name
        for asked, otherwise in interpolations(value or ""):
            assert not LOOKS_SECRET.search(asked) or otherwise.startswith(":?"), name


def test_compose_runs_the_migration_before_the_service() -> None:
    """Both use the same image; the service waits for the migration and for the database."""
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
    """Only temporary files can be written, and no privileges can be gained."""
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]  # noqa: S108 - a place in the container
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_compose_allows_enough_time_to_stop() -> None:
    """The service is not killed while it drains, which takes longest with several workers."""
    shutdown = Settings(environment="production").shutdown
    longest = shutdown.drain_seconds + shutdown.grace_seconds + 3 * CLEAN_UP_SECONDS

    assert float(SERVICES["service"]["stop_grace_period"].removesuffix("s")) > longest


def test_compose_publishes_nothing_beyond_this_machine() -> None:
    """An operator who wants other interfaces has to configure them."""
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]

    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
