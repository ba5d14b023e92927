"""The output, the written files and the errors of `example-service replay`."""

import errno
import io
import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from example_service.cli import main
from example_service.cli.replay import ReplayError, replay

CALLS = "time,duration,outcome\n" + "".join(
    f"{second},0.1,{'failure' if 5 <= second < 25 else 'success'}\n" for second in range(100)
)
STRICT = "strict: failure_threshold=3 recovery_timeout=5"


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A file of calls, some of which fail."""
    path = tmp_path / "calls.csv"
    path.write_text(CALLS)
    return path


def test_sets_are_compared(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each set has a row, in the order of the command line."""
    status = main(["replay", str(recording), "--set", STRICT, "--set", "defaults:"])

    printed = capsys.readouterr()
    assert (status, printed.err) == (0, "")
    assert [line.split()[0] for line in printed.out.splitlines()[3:5]] == ["strict", "defaults"]


def test_without_a_set_the_defaults_are_replayed(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The defaults are those of `CircuitBreaker`."""
    assert main(["replay", str(recording), "--json"]) == 0

    [defaults] = json.loads(capsys.readouterr().out)["sets"]
    assert (defaults["name"], defaults["parameters"]) == ("defaults", {})
    assert defaults["openings"][0]["why"] == "5 failures in a row"


def test_a_suggestion_is_replayed_beside_the_given_set(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The suggested set has a row of its own, and meets the goal."""
    assert main(["replay", str(recording), "--suggest", "10%", "--json"]) == 0

    document = json.loads(capsys.readouterr().out)
    _, suggested = document["sets"]
    assert suggested["name"] == "suggested"
    assert suggested["parameters"] == document["suggestion"]["parameters"]
    assert suggested["healthy_refused"] <= 0.1 * suggested["healthy"]


def test_a_picture_is_written_beside_the_table(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The picture replaces an earlier one, and no other file is left behind."""
    picture = recording.with_name("replay.svg")
    picture.write_text("earlier")

    assert main(["replay", str(recording), "--picture", str(picture)]) == 0
    assert capsys.readouterr().out.startswith("calls.csv, CSV: 100 calls")
    assert picture.read_text().startswith("<?xml")
    assert {path.name for path in recording.parent.iterdir()} == {"calls.csv", "replay.svg"}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--set", "failure_threshold=0"], "--set 'failure_threshold=0': failure_threshold must"),
        (["--set", "patience=3"], "--set 'patience=3': there is no 'patience'; there are"),
        (["--set", "a:", "--set", "a:"], "--set: there is another set with the name 'a'"),
        (["--set", "suggested:", "--suggest", "5"], "another set with the name 'suggested'"),
        (["--set", "\x1b[31mred: failure_threshold=3"], "has a control character; remove it"),
        (["--suggest", "many"], "--suggest must be a percentage from 0 to 100"),
        (["--suggest", "1_0"], "--suggest must be a percentage from 0 to 100"),
        (["--suggest", "101"], "--suggest must be a percentage from 0 to 100"),
        (["--suggest", "nan"], "--suggest must be a percentage from 0 to 100"),
        (["--route", "/a"], "only the calls of an access log have a route"),
        (["--picture", "replay.png"], "--picture draws SVG; name the file replay.svg"),
        (["--picture", "{folder}/calls.svg"], "would overwrite the recording; name another file"),
        (["--picture", "{folder}/folder.svg"], "folder.svg is a folder; name a file"),
        (["--picture", "nowhere/replay.svg"], "there is no folder nowhere; create it first"),
    ],
)
def test_unusable_options_are_refused(
    recording: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    """The exit status is 2, and the error names the option and its valid values."""
    folder = recording.parent
    (folder / "folder.svg").mkdir()
    (folder / "calls.svg").symlink_to(recording)
    given = [argument.replace("{folder}", str(folder)) for argument in arguments]

    assert main(["replay", str(recording), *given]) == 2
    assert recording.read_text() == CALLS

    printed = capsys.readouterr()
    assert printed.out == ""
    assert problem in printed.err


def test_a_broken_line_leaves_everything_as_it_was(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is printed or written, no matter how late in the file the line occurs."""
    with recording.open("a") as file:
        file.write("100,0.1\n")
    picture = recording.with_name("replay.svg")
    picture.write_text("earlier")

    assert main(["replay", str(recording), "--picture", str(picture), "--suggest", "1"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"{recording}, line 102: the line has 2 fields" in printed.err
    assert picture.read_text() == "earlier"
    assert len(list(recording.parent.iterdir())) == 2


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("nowhere.csv", "cannot be read: No such file"),
        ("", "is not a file"),
        ("pipe", "is not a file"),
    ],
)
def test_a_recording_that_is_not_a_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, problem: str
) -> None:
    """A missing file, a folder and a pipe (which can be read only once) are errors."""
    os.mkfifo(tmp_path / "pipe")

    assert main(["replay", str(tmp_path / name)]) == 2
    assert f"{tmp_path / name} {problem}" in capsys.readouterr().err


class FailingOutput(io.StringIO):
    """A standard output that fails at each write."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    def write(self, _text: str) -> int:
        """Fail."""
        raise self._error


DISK_FULL = OSError(errno.ENOSPC, "No space left on device")


def test_a_picture_that_cannot_be_written_is_an_error(
    recording: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table is not printed either, so a failure never looks like a partial success."""
    picture = recording.with_name("replay.svg")

    def write_half(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[:1000])
        raise DISK_FULL

    monkeypatch.setattr(Path, "write_bytes", write_half)

    assert main(["replay", str(recording), "--picture", str(picture)]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == (
        "",
        f"{picture} cannot be written: No space left on device\n",
    )
    assert [path.name for path in recording.parent.iterdir()] == ["calls.csv"]


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (DISK_FULL, ReplayError),
        (BrokenPipeError(), BrokenPipeError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_without_the_table_there_is_no_picture_either(
    recording: Path, error: BaseException, raised: type[BaseException]
) -> None:
    """An earlier picture stays as it was, whether the output fails or Ctrl+C interrupts it."""
    picture = recording.with_name("replay.svg")
    picture.write_text("earlier")
    options = Namespace(
        file=recording, sets=None, route=None, suggest=None, json=False, picture=picture
    )

    with pytest.raises(raised):
        replay(options, FailingOutput(error))
    assert picture.read_text() == "earlier"
    assert {path.name for path in recording.parent.iterdir()} == {"calls.csv", "replay.svg"}


def test_without_the_extra_only_the_picture_is_unavailable(
    recording: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error says how to install the extra, before the recording is read."""
    monkeypatch.setattr("example_service.cli.replay.find_spec", lambda _name: None)

    assert main(["replay", str(recording)]) == 0
    assert main(["replay", str(recording), "--picture", "replay.svg"]) == 2
    assert "pip install 'example-service[replay]'" in capsys.readouterr().err


def test_a_terminal_shows_the_progress(
    recording: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The progress bar is on standard error, so the output can be piped."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)

    assert main(["replay", str(recording), "--json"]) == 0
    printed = capsys.readouterr()
    assert "Replaying" in printed.err
    json.loads(printed.out)


def test_serving_imports_nothing_of_the_extra() -> None:
    """Commands other than `replay` load neither matplotlib nor tqdm."""
    code = (
        "import sys; import example_service.cli.serve; "
        "print([name for name in ('matplotlib', 'numpy', 'tqdm') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_replaying_imports_nothing_of_the_service(tmp_path: Path) -> None:
    """The modules of the service would take a second of the ten that a million calls may take."""
    recording = tmp_path / "calls.csv"
    recording.write_text("time,duration,outcome\n1,0.1,success\n")
    code = (
        "import sys; from example_service.cli import main; main(sys.argv[1:]); "
        "print([name for name in ('alembic', 'fastapi', 'sqlalchemy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "replay", str(recording)],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.endswith("[]\n")
