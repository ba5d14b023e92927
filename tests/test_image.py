"""What is shipped: Dockerfile and .dockerignore agree with the project.

That the image can be built, and does what it should, is seen in tests/integration/test_image.py.
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")


def instructions(name: str) -> list[str]:
    """The arguments of every instruction of that name in the Dockerfile."""
    return re.findall(rf"^{name} +(.+?) *$", DOCKERFILE, re.MULTILINE)


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
