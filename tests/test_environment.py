"""When and how `scripts/environment.py` builds the environment."""

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from scripts import environment as builder
from tests.project import ROOT
from tests.shell_scripts import write_script

SCRIPTS = ("scripts/find-python.sh", "scripts/environment.py")

# --- when and how it is built: scripts/environment.py


class Workshop:
    """A project that records its installers instead of running them."""

    def __init__(self, folder: Path) -> None:
        """Write the three files from which an environment is built."""
        (folder / "pyproject.toml").write_text("[project]\n")
        (folder / ".python-version").write_text("3.13\n")
        (folder / "dev.lock").write_text("one==1\n")
        self.environment = builder.Environment(folder, folder / ".venv", folder / "dev.lock")
        self.steps: list[str] = []
        self.failing = ""

    def run(self, command: list[str]) -> None:
        """Record a command, and create what it would create; or fail."""
        step = self.name_of(command)
        self.steps.append(step)
        if step == self.failing:
            raise subprocess.CalledProcessError(1, command)
        if step.startswith("create"):
            self.environment.python.parent.mkdir(parents=True)
            self.environment.python.symlink_to(sys.executable)

    def name_of(self, command: list[str]) -> str:
        """A short name for a command."""
        if "venv" in command:
            return "create without pip" if "--without-pip" in command else "create"
        installer = "uv" if Path(command[0]).name == "uv" else "pip"
        return f"{installer} {'project' if '--editable' in command else 'packages'}"

    def ensure(self) -> list[str]:
        """Bring the environment up to date, and return the steps that were needed."""
        self.steps.clear()
        builder.ensure(self.environment)
        return list(self.steps)


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """A project that has not been built yet, on a machine without uv."""
    workshop = Workshop(tmp_path)
    monkeypatch.setattr(builder, "_run", workshop.run)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return workshop


COMPLETE = ["create", "pip packages", "pip project"]


def test_built_environment_is_left_alone(workshop: Workshop) -> None:
    """The first call builds the environment, and the second finds it up to date."""
    assert workshop.ensure() == COMPLETE
    assert workshop.ensure() == []


def test_a_build_announces_its_size(workshop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    """One line at the start names the environment, its lock, its packages and the duration."""
    pins = "".join(f"package-{number}==1.0 \\\n" for number in range(30))
    workshop.environment.lock.write_text(pins)

    workshop.ensure()

    [line] = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        r"Building \.venv on Python [\d.]+ from dev\.lock: 30 packages, about 20 seconds", line
    )


def test_a_terminal_shows_the_progress(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each package that pip handles replaces the one before, and other lines are hidden."""
    lines = "Collecting one==1.0\nDownloading one\nCollecting two==2.0\nInstalling collected: both"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    builder._run(["printf", "%b", lines])

    shown = capsys.readouterr().err.split("\r\x1b[K")
    assert shown == ["", "1: one==1.0", "2: two==2.0", "installing 2 packages", ""]


def test_touched_files_build_nothing(workshop: Workshop) -> None:
    """Contents matter, not times: a fresh checkout of the same lock builds nothing."""
    workshop.ensure()
    os.utime(workshop.environment.lock, (2e9, 2e9))

    assert workshop.ensure() == []


@pytest.mark.parametrize("name", ["dev.lock", ".python-version"])
def test_changed_lock_or_preferred_python_rebuilds_everything(
    workshop: Workshop, name: str
) -> None:
    """Nothing remains of the old environment."""
    workshop.ensure()
    lingering = workshop.environment.directory / "lingering"
    lingering.touch()
    (workshop.environment.project / name).write_text("3.12\n")

    assert workshop.ensure() == COMPLETE
    assert not lingering.exists()


def test_changed_project_file_installs_only_the_project(workshop: Workshop) -> None:
    """A changed pyproject.toml reinstalls no package, so it needs no network."""
    workshop.ensure()
    (workshop.environment.project / "pyproject.toml").write_text('[project]\nname = "other"\n')

    assert workshop.ensure() == ["pip project"]
    assert workshop.ensure() == []


def test_lock_without_the_build_backend_installs_packages_alone(workshop: Workshop) -> None:
    """An environment that runs the project from its folder does not need to build it."""
    metadata = '[build-system]\nrequires = ["backend>=1"]\n'
    (workshop.environment.project / "pyproject.toml").write_text(metadata)

    assert workshop.ensure() == COMPLETE[:2]
    assert workshop.ensure() == []
    workshop.environment.lock.write_text("backend==1.0 \\\n")
    assert workshop.ensure() == COMPLETE


def test_moved_environment_is_rebuilt(workshop: Workshop, tmp_path: Path) -> None:
    """An environment that was copied with its folder would run the code of the old folder."""
    workshop.ensure()
    copy = tmp_path / "copy"
    shutil.copytree(workshop.environment.project, copy, symlinks=True)
    workshop.environment = builder.Environment(copy, copy / ".venv", copy / "dev.lock")

    assert workshop.ensure() == COMPLETE


def test_environment_whose_python_is_gone_is_rebuilt(workshop: Workshop) -> None:
    """Upgrading or removing the system's Python leaves a dangling link behind."""
    workshop.ensure()
    workshop.environment.python.unlink()
    workshop.environment.python.symlink_to("nowhere")

    assert workshop.ensure() == COMPLETE


@pytest.mark.parametrize(
    ("failing", "repair"),
    [
        ("create", COMPLETE),
        ("pip packages", COMPLETE),
        ("pip project", ["pip project"]),
    ],
)
def test_unfinished_build_is_completed_by_the_next_call(
    workshop: Workshop, failing: str, repair: list[str]
) -> None:
    """Wherever a build stops, the next call continues from the completed steps."""
    workshop.failing = failing
    with pytest.raises(subprocess.CalledProcessError):
        workshop.ensure()
    workshop.failing = ""

    assert workshop.ensure() == repair
    assert workshop.ensure() == []


def test_unfinished_rebuild_does_not_pass_for_the_old_environment(workshop: Workshop) -> None:
    """A failed rebuild leaves an incomplete environment, even if the lock is changed back."""
    workshop.ensure()
    old = workshop.environment.lock.read_bytes()
    workshop.environment.lock.write_text("two==2\n")
    workshop.failing = "pip packages"
    with pytest.raises(subprocess.CalledProcessError):
        workshop.ensure()
    workshop.environment.lock.write_bytes(old)
    workshop.failing = ""

    assert workshop.ensure() == COMPLETE


def test_uv_installs_if_it_works(workshop: Workshop) -> None:
    """A working uv on PATH performs both installations."""
    write_script(workshop.environment.project / "bin/uv", "exit 0")

    assert workshop.ensure() == ["create", "uv packages", "uv project"]


def test_python_without_ensurepip_gets_an_environment_from_uv(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian's Python without its venv package creates an environment that only uv can fill."""
    write_script(workshop.environment.project / "bin/uv", "exit 0")
    monkeypatch.setitem(sys.modules, "ensurepip", None)

    assert workshop.ensure() == ["create without pip", "uv packages", "uv project"]


def test_uv_that_fails_is_ignored(workshop: Workshop) -> None:
    """A shim of uv that does not run counts as no uv."""
    write_script(workshop.environment.project / "bin/uv", "exit 127")

    assert workshop.ensure() == COMPLETE


def test_pip_takes_over_where_uv_cannot_install(
    workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mirror or certificate that only pip knows is used although uv is installed."""
    write_script(workshop.environment.project / "bin/uv", "exit 0")
    workshop.failing = "uv packages"

    assert workshop.ensure() == ["create", "uv packages", "pip packages", "uv project"]
    assert "trying pip" in capsys.readouterr().err


# --- the same with a real environment


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small project in a folder with a space in its name, beside a folder of wheels."""
    folder = tmp_path / "a project"
    for name in SCRIPTS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / ".python-version").write_text("3.13\n")
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (folder / "backend.py").write_text(BACKEND)
    wheel = write_wheel(tmp_path / "wheels", "locked", "1.0")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (folder / "dev.lock").write_text(f"locked==1.0 \\\n    --hash=sha256:{digest}\n")
    return folder


def write_wheel(folder: Path, name: str, version: str) -> Path:
    """Write the smallest wheel that pip and uv can install: one module with this name."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"version = '{version}'\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()},{len(text)}\n"
        for path, text in files.items()
        if (digest := hashlib.sha256(text.encode()).digest())
    )
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(path, text)
    return wheel


# This build backend makes the project's folder importable without installing anything.
BACKEND = """
import os
import zipfile

def build_editable(directory, settings=None, metadata=None):
    name = "tiny-1.0-py3-none-any.whl"
    info = "tiny-1.0.dist-info"
    with zipfile.ZipFile(os.path.join(directory, name), "w") as wheel:
        wheel.writestr("tiny.pth", os.getcwd())
        wheel.writestr(info + "/METADATA", "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n")
        wheel.writestr(info + "/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\n"
                                        "Tag: py3-none-any\\n")
        wheel.writestr(info + "/RECORD", "")
    return name

build_wheel = build_editable
"""


def build(project: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Build the project's environment with pip, offline except for what the variables allow."""
    return subprocess.run(
        [sys.executable, "scripts/environment.py", ".venv", "dev.lock"],
        cwd=project,
        env={"PATH": str(project), "HOME": str(project), "PIP_NO_INDEX": "1"} | environ,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.integration
def test_environment_is_built_by_pip_and_kept(project: Path) -> None:
    """The build fails first, then succeeds with pip's settings, and is later left alone offline."""
    wheels = {"PIP_FIND_LINKS": str(project.parent / "wheels")}
    elsewhere = project / "elsewhere"
    misleading = {
        "PIP_REQUIRE_HASHES": "1",
        "PIP_TARGET": str(elsewhere),
        "PIP_USER": "1",
        "UV_PYTHON": str(elsewhere),
        "VIRTUAL_ENV": str(elsewhere),
    }

    failed = build(project)
    built = build(project, **wheels, **misleading)
    again = build(project)

    assert failed.returncode == 1
    assert "No matching distribution found for locked==1.0" in failed.stderr
    assert built.returncode == 0, built.stderr
    assert not elsewhere.exists()
    assert (again.returncode, again.stderr) == (0, "")
    result = subprocess.run(
        [project / ".venv/bin/python", "-c", "import locked, backend; print(backend.__file__)"],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    assert result.stdout.strip() == str(project / "backend.py")


@pytest.mark.integration
def test_package_that_differs_from_its_hash_is_refused(project: Path) -> None:
    """A wheel that was replaced after the lock was written is not installed."""
    wheel = project.parent / "wheels" / "locked-1.0-py3-none-any.whl"
    wheel.write_bytes(wheel.read_bytes() + b"exchanged")

    built = build(project, PIP_FIND_LINKS=str(wheel.parent))

    assert built.returncode == 1
    assert "DO NOT MATCH THE HASHES" in built.stderr
