"""The locks pin every requirement, agree with each other, and name no index."""

import re
from collections import defaultdict

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.project import PYPROJECT, ROOT

LOCKS = [
    "requirements.lock",
    "requirements-breaker.lock",
    "requirements-dev.lock",
    "requirements-bench.lock",
]


def pins(lock: str) -> dict[str, set[str]]:
    """The pinned versions of a lock, by normalized package name."""
    pinned: dict[str, set[str]] = defaultdict(set)
    for line in (ROOT / lock).read_text().splitlines():
        if found := re.match(r"([\w.-]+)(?:\[[^]]*\])?==([^\s;\\]+)", line):
            pinned[canonicalize_name(found[1])].add(found[2])
    return pinned


def requirements(group: str | None) -> list[Requirement]:
    """The requirements of the runtime and of a dependency group, with the groups it includes."""
    lines = list(PYPROJECT["project"]["dependencies"]) if group is None else []
    for entry in PYPROJECT["dependency-groups"][group] if group else []:
        if isinstance(entry, str):
            lines.append(entry)
        else:
            lines.extend(map(str, requirements(entry["include-group"])))
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize(
    ("lock", "group"),
    [
        *((lock, None) for lock in LOCKS if lock != "requirements-breaker.lock"),
        ("requirements-breaker.lock", "breaker"),
        ("requirements-dev.lock", "dev"),
        ("requirements-bench.lock", "bench"),
    ],
)
def test_lock_pins_every_requirement(lock: str, group: str | None) -> None:
    """Each requirement in pyproject.toml is pinned to a version that satisfies it."""
    pinned = pins(lock)

    unmet = [
        str(requirement)
        for requirement in requirements(group)
        if not (versions := pinned.get(canonicalize_name(requirement.name)))
        or not all(requirement.specifier.contains(version) for version in versions)
    ]

    assert unmet == [], "run `make lock`"


@pytest.mark.parametrize("lock", ["requirements-dev.lock", "requirements-bench.lock"])
def test_lock_pins_the_build_backend(lock: str) -> None:
    """The project is installed without build isolation, so the lock must contain its backend."""
    names = [Requirement(line).name for line in PYPROJECT["build-system"]["requires"]]

    assert set(map(canonicalize_name, names)) <= pins(lock).keys()


@pytest.mark.parametrize(
    ("smaller", "larger"),
    [
        ("requirements.lock", "requirements-dev.lock"),
        ("requirements.lock", "requirements-bench.lock"),
        ("requirements-breaker.lock", "requirements-dev.lock"),
    ],
)
def test_locks_agree_about_shared_packages(smaller: str, larger: str) -> None:
    """Tests and benchmarks use the versions of the image, on every Python."""
    pinned, others = pins(smaller), pins(larger)

    assert {name: others.get(name) for name in pinned} == pinned


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_is_hashed_and_free_of_addresses(lock: str) -> None:
    """Every entry is an exact pin with hashes, without an address, option or local path."""
    text = re.sub(r"(?m)^ *#.*\n", "", (ROOT / lock).read_text())
    entries = text.replace("\\\n", " ").splitlines()
    entry = re.compile(r"[\w.-]+(\[[^]]*\])?==\S+( ; [^\\]+?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*")

    assert [line for line in entries if not entry.fullmatch(line)] == []
    assert "://" not in (ROOT / lock).read_text()
