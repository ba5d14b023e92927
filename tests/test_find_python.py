"""Which Python is found: `scripts/find-python.sh`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project import ROOT
from tests.shell_scripts import write_script


class FakeMachine:
    """A machine that has only the programs a test puts on its PATH."""

    def __init__(self, folder: Path) -> None:
        """Start with nothing but the project, which prefers Python 3.13."""
        self.folder = folder
        self.path = [folder / "bin"]
        for name in ["project/scripts", "home", "bin"]:
            (folder / name).mkdir(parents=True)
        shutil.copy(ROOT / "scripts/find-python.sh", folder / "project/scripts")
        (folder / "project/.python-version").write_text("3.13\n")

    def add_python(self, name: str, version: str, *, missing: str = "") -> Path:
        """Put a Python of that version there, "3.13t" without the global interpreter lock.

        Args:
            name: Where to put it.
            version: What it says.
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
        """Search for a Python with nothing but this machine's programs."""
        return subprocess.run(
            [self.folder / "project/scripts/find-python.sh", *arguments],
            env={"PATH": ":".join(map(str, self.path)), "HOME": str(self.folder / "home")},
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )

    def found(self, *arguments: str) -> str:
        """The Python that was found, as a name within this machine."""
        result = self.find(*arguments)
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout.strip().removeprefix(f"{self.folder}/")


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    """A machine without any Python."""
    return FakeMachine(tmp_path)


def test_preferred_python_is_chosen(machine: FakeMachine) -> None:
    """The version in .python-version wins over every other one."""
    for name, version in {"python3": "3.12", "python3.12": "3.12", "python3.13": "3.13"}.items():
        machine.add_python(f"bin/{name}", version)

    assert machine.found() == "bin/python3.13"


def test_python_version_file_decides(machine: FakeMachine) -> None:
    """A project that prefers another version gets it, also when the file lacks its last newline."""
    machine.add_python("bin/python3.13", "3.13")
    machine.add_python("bin/python3.12", "3.12")
    (machine.folder / "project/.python-version").write_text("3.12")

    assert machine.found() == "bin/python3.12"


def test_failing_shim_is_skipped(machine: FakeMachine) -> None:
    """A program of the right name that does not run is passed over."""
    write_script(machine.folder / "bin/python3.13", 'echo "command not found" >&2; exit 127')
    machine.add_python("bin/python3.12", "3.12")

    assert machine.found() == "bin/python3.12"


def test_python_behind_a_failing_shim_is_found(machine: FakeMachine) -> None:
    """A later folder of PATH counts when the program in an earlier one fails."""
    machine.path.insert(0, machine.folder / "shims")
    write_script(machine.folder / "shims/python3.13", "exit 127")
    machine.add_python("bin/python3.13", "3.13")

    assert machine.found() == "bin/python3.13"


def test_python_in_pyenvs_folder_is_found(machine: FakeMachine) -> None:
    """What pyenv has installed is used although its shim refuses."""
    write_script(machine.folder / "bin/python3.13", "exit 127")
    machine.add_python("bin/python3.12", "3.12")
    machine.add_python("home/.pyenv/versions/3.13.5/bin/python", "3.13")

    assert machine.found() == "home/.pyenv/versions/3.13.5/bin/python"


def test_program_that_lies_about_its_version_is_skipped(machine: FakeMachine) -> None:
    """The version is asked of the interpreter, not read from its name."""
    machine.add_python("bin/python3.13", "3.10")
    machine.add_python("bin/python3", "3.11")

    assert machine.found() == "bin/python3"


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.14"])
def test_any_supported_python_will_do(machine: FakeMachine, version: str) -> None:
    """A plain `python3` is accepted from 3.11 on."""
    machine.add_python("bin/python3", version)

    assert machine.found() == "bin/python3"


def test_too_old_python_is_refused_in_one_line(machine: FakeMachine) -> None:
    """With only a Python 3.10 the user reads what is needed and how to get it."""
    machine.add_python("bin/python3", "3.10")

    result = machine.find()

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert "Python 3.11 or newer is needed" in result.stderr
    assert "apt install python3" in result.stderr


def test_required_version_admits_no_other(machine: FakeMachine) -> None:
    """When one version is asked for, another one is not offered instead."""
    machine.add_python("bin/python3.13", "3.13")
    machine.add_python("bin/python3.12", "3.12")

    assert machine.found("3.12") == "bin/python3.12"
    assert machine.find("3.11").returncode == 1


def test_free_threaded_python_is_another_version(machine: FakeMachine) -> None:
    """`3.13t` is found where pyenv keeps it, and is not taken for a 3.13."""
    machine.add_python("home/.pyenv/versions/3.13.5t/bin/python", "3.13t")
    machine.add_python("bin/python3.12", "3.12")

    assert machine.found("3.13t") == "home/.pyenv/versions/3.13.5t/bin/python"
    assert machine.find("3.13").returncode == 1
    assert machine.found() == "bin/python3.12"


def test_python_without_venv_is_named(machine: FakeMachine) -> None:
    """Debian's Python without its venv package is refused with the name of that package."""
    machine.add_python("bin/python3", "3.12", missing="ensurepip")

    result = machine.find()

    assert result.returncode == 1
    assert "apt install python3-venv" in result.stderr


def test_uv_makes_up_for_a_python_without_venv(machine: FakeMachine) -> None:
    """Where uv installs, pip is not needed in the environment."""
    machine.add_python("bin/python3", "3.12", missing="ensurepip")
    write_script(machine.folder / "bin/uv", 'test "$1" = --version')

    assert machine.found() == "bin/python3"


def test_python_that_uv_keeps_is_found(machine: FakeMachine) -> None:
    """A machine whose only Python was installed by uv will do."""
    kept = machine.add_python("kept-by-uv/python", "3.13")
    write_script(machine.folder / "bin/uv", f'test "$1" = --version || echo "{kept}"')

    assert machine.found() == "kept-by-uv/python"


def test_activated_environment_is_seen_through() -> None:
    """From inside an environment the Python it was made from is found, not the environment's."""
    found = subprocess.run(
        [ROOT / "scripts/find-python.sh", f"{sys.version_info.major}.{sys.version_info.minor}"],
        env=os.environ | {"PATH": str(Path(sys.executable).parent), "VIRTUAL_ENV": sys.prefix},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()

    assert sys.prefix != sys.base_prefix
    assert not Path(found).is_relative_to(sys.prefix)
