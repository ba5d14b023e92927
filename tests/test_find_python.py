"""Which Python `scripts/find-python.sh` finds."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project import ROOT
from tests.shell_scripts import write_script


class FakeMachine:
    """A machine with only those programs that a test puts on its PATH."""

    def __init__(self, folder: Path) -> None:
        """Start with only the project, which prefers Python 3.13."""
        self.folder = folder
        self.path = [folder / "bin"]
        for name in ["project/scripts", "home", "bin"]:
            (folder / name).mkdir(parents=True)
        shutil.copy(ROOT / "scripts/find-python.sh", folder / "project/scripts")
        (folder / "project/.python-version").write_text("3.13\n")

    def add_python(self, name: str, version: str, *, missing: str = "") -> Path:
        """Add a Python of this version; "3.13t" is free-threaded.

        Args:
            name: Its path within the machine.
            version: The version that it reports.
            missing: A module that it lacks.
        """
        pretend = (
            "import sys, sysconfig, importlib.util as util; find = util.find_spec; "
            f"sysconfig.get_config_var = lambda _: {int(version.endswith('t'))}; "
            f"util.find_spec = lambda name: None if name == '{missing}' else find(name); "
            f"sys.version_info = ({version.rstrip('t').replace('.', ', ')}, 0, 'final', 0); "
            f"sys.executable = sys._base_executable = '{self.folder / name}'; "
            "code = sys.argv.pop(1); exec(code)"
        )
        interpreter = f'[ "$1 $2" = "-I -c" ] || exit 2\nshift 2\nexec "{sys.executable}"'
        return write_script(self.folder / name, f'{interpreter} -I -c "{pretend}" "$@"')

    def find(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Search for a Python, with only this machine's programs."""
        return subprocess.run(
            [self.folder / "project/scripts/find-python.sh", *arguments],
            env={"PATH": ":".join(map(str, self.path)), "HOME": str(self.folder / "home")},
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )

    def found(self, *arguments: str) -> str:
        """The path of the Python that was found, within this machine."""
        result = self.find(*arguments)
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout.strip().removeprefix(f"{self.folder}/")


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    """A machine without any Python."""
    return FakeMachine(tmp_path)


def test_preferred_python_is_chosen(machine: FakeMachine) -> None:
    """The version in .python-version takes precedence over all others."""
    for name, version in {"python3": "3.12", "python3.12": "3.12", "python3.13": "3.13"}.items():
        machine.add_python(f"bin/{name}", version)

    assert machine.found() == "bin/python3.13"


def test_python_version_file_decides(machine: FakeMachine) -> None:
    """A project that prefers another version gets it, even without a newline in the file."""
    machine.add_python("bin/python3.13", "3.13")
    machine.add_python("bin/python3.12", "3.12")
    (machine.folder / "project/.python-version").write_text("3.12")

    assert machine.found() == "bin/python3.12"


def test_failing_shim_is_skipped(machine: FakeMachine) -> None:
    """A program with the right name that does not run is skipped."""
    write_script(machine.folder / "bin/python3.13", 'echo "command not found" >&2; exit 127')
    machine.add_python("bin/python3.12", "3.12")

    assert machine.found() == "bin/python3.12"


def test_python_behind_a_failing_shim_is_found(machine: FakeMachine) -> None:
    """A later folder of PATH is searched if the program in an earlier one fails."""
    machine.path.insert(0, machine.folder / "shims")
    write_script(machine.folder / "shims/python3.13", "exit 127")
    machine.add_python("bin/python3.13", "3.13")

    assert machine.found() == "bin/python3.13"


def test_python_in_pyenvs_folder_is_found(machine: FakeMachine) -> None:
    """A Python that pyenv has installed is used even if its shim refuses to run."""
    write_script(machine.folder / "bin/python3.13", "exit 127")
    machine.add_python("bin/python3.12", "3.12")
    machine.add_python("home/.pyenv/versions/3.13.5/bin/python", "3.13")

    assert machine.found() == "home/.pyenv/versions/3.13.5/bin/python"


def test_program_that_lies_about_its_version_is_skipped(machine: FakeMachine) -> None:
    """The interpreter itself is asked for its version; its name is not trusted."""
    machine.add_python("bin/python3.13", "3.10")
    machine.add_python("bin/python3", "3.11")

    assert machine.found() == "bin/python3"


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.14"])
def test_any_supported_python_will_do(machine: FakeMachine, version: str) -> None:
    """A plain `python3` is accepted if it is 3.11 or newer."""
    machine.add_python("bin/python3", version)

    assert machine.found() == "bin/python3"


def test_too_old_python_is_refused_in_one_line(machine: FakeMachine) -> None:
    """With only Python 3.10, the line says what is needed and how to install it."""
    machine.add_python("bin/python3", "3.10")

    result = machine.find()

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert "Python 3.11 or newer is needed" in result.stderr
    assert "apt install python3" in result.stderr


def test_a_required_version_is_not_replaced_by_another(machine: FakeMachine) -> None:
    """If a certain version is requested, no other version is returned."""
    machine.add_python("bin/python3.13", "3.13")
    machine.add_python("bin/python3.12", "3.12")

    assert machine.found("3.12") == "bin/python3.12"
    assert machine.find("3.11").returncode == 1


def test_free_threaded_python_is_a_separate_version(machine: FakeMachine) -> None:
    """`3.13t` is found in pyenv's folder, and does not count as a 3.13."""
    machine.add_python("home/.pyenv/versions/3.13.5t/bin/python", "3.13t")
    machine.add_python("bin/python3.12", "3.12")

    assert machine.found("3.13t") == "home/.pyenv/versions/3.13.5t/bin/python"
    assert machine.find("3.13").returncode == 1
    assert machine.found() == "bin/python3.12"


def test_python_without_venv_is_named(machine: FakeMachine) -> None:
    """Debian's Python without its venv package is refused, and the error names that package."""
    machine.add_python("bin/python3", "3.12", missing="ensurepip")

    result = machine.find()

    assert result.returncode == 1
    assert "apt install python3-venv" in result.stderr


def test_uv_makes_up_for_a_python_without_venv(machine: FakeMachine) -> None:
    """If uv installs the packages, the environment does not need pip."""
    machine.add_python("bin/python3", "3.12", missing="ensurepip")
    write_script(machine.folder / "bin/uv", 'test "$1" = --version')

    assert machine.found() == "bin/python3"


def test_python_installed_by_uv_is_found(machine: FakeMachine) -> None:
    """It is enough if uv has installed the only Python of the machine."""
    kept = machine.add_python("kept-by-uv/python", "3.13")
    write_script(machine.folder / "bin/uv", f'test "$1" = --version || echo "{kept}"')

    assert machine.found() == "kept-by-uv/python"


def test_activated_environment_is_not_used() -> None:
    """In an activated environment, the Python from which it was created is found."""
    found = subprocess.run(
        [ROOT / "scripts/find-python.sh", f"{sys.version_info.major}.{sys.version_info.minor}"],
        env=os.environ | {"PATH": str(Path(sys.executable).parent), "VIRTUAL_ENV": sys.prefix},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()

    assert sys.prefix != sys.base_prefix
    assert not Path(found).is_relative_to(sys.prefix)
