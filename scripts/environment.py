#!/usr/bin/env python3
"""Build a virtual environment from a hashed lock, unless it is up to date.

    python scripts/environment.py DIRECTORY LOCK

Both are names inside the project's folder. The environment is built with the Python that runs this
file. It gets every package that the lock pins, and the project itself as an editable install if the
lock has its build backend; otherwise the project runs from its folder. uv installs the packages if
it is on PATH and runs, and pip does otherwise. A second call finds the recorded fingerprints
unchanged and does nothing, so a complete environment needs no network.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Variables that would make packages or modules go to or come from another Python, or that forbid
# the editable install because a folder has no hash. All others are kept, because users configure
# proxies, mirrors and certificates with them.
MISLEADING = (
    "PIP_PREFIX",
    "PIP_PYTHON",
    "PIP_REQUIRE_HASHES",
    "PIP_ROOT",
    "PIP_TARGET",
    "PYTHONHOME",
    "PYTHONPATH",
    "UV_PREFIX",
    "UV_PYTHON",
    "UV_REQUIRE_HASHES",
    "UV_SYSTEM_PYTHON",
    "UV_TARGET",
    "VIRTUAL_ENV",
)


@dataclass(frozen=True)
class Environment:
    """One virtual environment and its sources."""

    project: Path
    directory: Path
    lock: Path

    @property
    def python(self) -> Path:
        """The environment's own interpreter."""
        return self.directory / "bin" / "python"

    @property
    def record(self) -> Path:
        """The file with the fingerprints of what has been built."""
        return self.directory / "built-from.json"

    def fingerprints(self) -> dict[str, str]:
        """The inputs of a build: the packages of the lock, and the project's own metadata.

        The first includes the project's path, because an environment that was copied to another
        folder would still run the code of the old one.
        """
        packages = _digest(
            os.fsencode(self.project),
            (self.project / ".python-version").read_bytes(),
            self.lock.read_bytes(),
        )
        if not self.has_build_backend:
            return {"packages": packages}
        metadata = (self.project / "pyproject.toml").read_bytes()
        return {"packages": packages, "project": _digest(metadata)}

    @property
    def has_build_backend(self) -> bool:
        """Whether the lock includes the project's build backend."""
        metadata = tomllib.loads((self.project / "pyproject.toml").read_text(encoding="utf-8"))
        required = metadata.get("build-system", {}).get("requires", [])
        return all(
            re.split(r"[^\w.-]", requirement)[0] in self.packages for requirement in required
        )

    @property
    def packages(self) -> list[str]:
        """The names of all packages that the lock pins, for any system."""
        return re.findall(r"(?m)^([\w.-]+)==", self.lock.read_text(encoding="utf-8"))

    def recorded(self) -> dict[str, str]:
        """The fingerprints of what has been built; empty if the environment does not run."""
        try:
            subprocess.run([self.python, "-I", "-c", ""], check=True, capture_output=True)  # noqa: S603
            recorded: dict[str, str] = json.loads(self.record.read_bytes())
        except (OSError, ValueError, subprocess.CalledProcessError):
            return {}
        return recorded


def ensure(environment: Environment) -> None:
    """Make the environment match the lock and pyproject.toml.

    A changed lock rebuilds it, so that no old package remains. A changed pyproject.toml only
    reinstalls the project, which needs no network. Each completed step is recorded, so the next
    call continues after an interruption.

    Raises:
        subprocess.CalledProcessError: If a package could not be installed.
    """
    if environment.recorded() == environment.fingerprints():
        return
    with _alone_with(environment.lock):
        # Read again, because another call may have built the environment in the meantime.
        wanted, recorded = environment.fingerprints(), environment.recorded()
        if recorded.get("packages") != wanted["packages"]:
            _create(environment)
            _install(environment, "--require-hashes", "--requirement", str(environment.lock))
            recorded = {"packages": wanted["packages"]}
            environment.record.write_text(json.dumps(recorded))
        if recorded != wanted:
            # The lock has the build backend, so nothing is fetched to build the project.
            project = str(environment.project)
            _install(environment, "--no-deps", "--no-build-isolation", "--editable", project)
            environment.record.write_text(json.dumps(wanted))


def _create(environment: Environment) -> None:
    """Replace the folder by a new, empty environment."""
    environment.record.unlink(missing_ok=True)
    python = ".".join(map(str, sys.version_info[:3]))
    packages = len(environment.packages)
    # An estimate: some seconds to start, and a fraction of a second for each package.
    seconds = 10 * round(1 + packages / 25)
    _say(
        f"Building {environment.directory.name} on Python {python} from {environment.lock.name}: "
        f"{packages} packages, about {seconds} seconds"
    )
    if environment.directory.is_symlink():
        environment.directory.unlink()
    elif environment.directory.exists():
        shutil.rmtree(environment.directory)
    # Debian packages ensurepip separately; with uv, pip is not needed.
    pip = [] if importlib.util.find_spec("ensurepip") else ["--without-pip"]
    _run([sys.executable, "-m", "venv", *pip, str(environment.directory)])


def _install(environment: Environment, *arguments: str) -> None:
    """Install into the environment with uv if it can, else with pip.

    uv does not read pip's configuration. If only that has the mirror or the certificate that this
    machine needs, uv fails and pip succeeds.
    """
    python = str(environment.python)
    uv = _working_uv()
    if uv is not None:
        try:
            _run([uv, "pip", "install", "--quiet", "--python", python, *arguments])
        except subprocess.CalledProcessError:
            _say("uv failed; trying pip, which has its own configuration")
        else:
            return
    _run([python, "-m", "pip", "install", "--disable-pip-version-check", *arguments])


def _working_uv() -> str | None:
    uv = shutil.which("uv")
    if uv is None:
        return None
    try:
        subprocess.run([uv, "--version"], check=True, capture_output=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
    return uv


def _run(command: list[str]) -> None:
    environ = {name: value for name, value in os.environ.items() if name not in MISLEADING}
    environ |= {"PIP_USER": "0", "PYTHONUNBUFFERED": "1"}
    collected = 0
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        for line in process.stdout or ():
            if line.startswith("Collecting "):
                collected += 1
                _show_progress(f"{collected}: {line.split()[1]}")
            elif line.startswith("Installing "):
                _show_progress(f"installing {collected} packages")
    _show_progress("")
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command)


@contextlib.contextmanager
def _alone_with(lock: Path) -> Iterator[None]:
    """Allow one build from this lock at a time; the claim ends with its process."""
    with lock.open("r+b") as claimed:
        try:
            fcntl.flock(claimed, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("Waiting for another build to finish")
            fcntl.flock(claimed, fcntl.LOCK_EX)
        yield


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def _show_progress(text: str) -> None:
    """Replace the current line of a terminal; a log gets no progress."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def main(arguments: list[str]) -> int:
    """Build the environment named on the command line, and return the exit status."""
    directory, lock = arguments
    project = Path(__file__).resolve().parent.parent
    try:
        ensure(Environment(project, project / directory, project / lock))
    except subprocess.CalledProcessError as error:
        _say(f"{directory} is incomplete (status {error.returncode}); the lines above say why.")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
