"""The command line: arguments, exit statuses, standard output and standard error."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import example_service
from example_service.cli import main
from example_service.core.exceptions import StartError
from example_service.core.settings import Settings
from example_service.server.process import ListenError


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings passed to `serve`, which is replaced and does not serve."""
    calls: list[Settings] = []

    def serve(settings: Settings) -> int:
        calls.append(settings)
        return 0

    # Setting and deleting them makes `monkeypatch` restore them, whatever the command does.
    for name in ("HOST", "PORT", "WORKERS"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr("example_service.cli.serve.serve", serve)
    return calls


def raising(error: BaseException) -> Callable[[Settings], int]:
    """A `serve` that fails."""

    def serve(_: Settings) -> int:
        raise error

    return serve


def test_options_win_over_variables(
    served: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Options are also put into the environment, where workers read them."""
    monkeypatch.setenv("PORT", "1")
    monkeypatch.setenv("WORKERS", "3")

    assert main(["serve", "--host", "0.0.0.0", "--port", "9"]) == 0  # noqa: S104 - it is never opened

    (settings,) = served
    assert (settings.host, settings.port, settings.workers) == ("0.0.0.0", 9, 3)  # noqa: S104
    assert os.environ["PORT"] == "9"


def test_without_options_the_settings_decide(served: list[Settings]) -> None:
    """An option that is omitted changes nothing."""
    assert main(["serve"]) == 0

    assert served == [Settings()]


@pytest.mark.parametrize("command", ["serve", "doctor"])
def test_unusable_settings_are_a_table_on_standard_error(
    command: str,
    served: list[Settings],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The exit status is 2, and standard output stays empty."""
    monkeypatch.setenv("WORKERS", "many")

    assert main([command]) == 2

    output = capsys.readouterr()
    assert output.out == ""
    assert "WORKERS" in output.err
    assert "PROBLEM" in output.err
    assert served == []


@pytest.mark.parametrize("command", ["serve", "doctor"])
def test_a_current_directory_that_was_deleted_is_reported(
    command: str,
    served: list[Settings],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Relative paths and new workers need it, as after the replacement of a release."""
    (tmp_path / "release").mkdir()
    monkeypatch.chdir(tmp_path / "release")
    (tmp_path / "release").rmdir()

    status = main([command])

    monkeypatch.chdir(tmp_path)
    assert status == 2
    assert "cannot be used: No such file" in capsys.readouterr().err
    assert served == []


@pytest.mark.parametrize(
    ("value", "status"), [("b3,tracecontext", 2), ("none", 0), ("baggage,", 0)]
)
def test_a_propagator_that_is_not_installed_is_reported(
    value: str,
    status: int,
    served: list[Settings],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Operators of clusters set the variable, and FastAPI cannot be imported with it."""
    monkeypatch.setenv("OTEL_PROPAGATORS", value)

    assert main(["serve"]) == status

    assert ("OTEL_PROPAGATORS" in capsys.readouterr().err) == (status == 2)
    assert len(served) == (status == 0)


def test_an_invalid_option_is_reported_like_an_invalid_setting(
    served: list[Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    """Options are checked by the same rules as variables."""
    assert main(["serve", "--port", "99999"]) == 2

    assert "PORT" in capsys.readouterr().err
    assert served == []


@pytest.mark.parametrize("error", [ListenError("Port 1 is taken."), StartError("No sandbox.")])
def test_a_failure_to_start_is_one_line_on_standard_error(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit status is 1."""
    monkeypatch.setattr("example_service.cli.serve.serve", raising(error))

    assert main(["serve"]) == 1

    assert capsys.readouterr().err == f"{error}\n"


def test_an_interrupt_before_serving_leaves_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit status is the one that shells use for Ctrl+C."""
    monkeypatch.setattr("example_service.cli.serve.serve", raising(KeyboardInterrupt()))

    assert main(["serve"]) == 130


def test_the_doctor_reports_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    """The command exits with the status that the doctor returns."""
    assert main(["doctor"]) == 0

    output = capsys.readouterr()
    assert "LOG__LEVEL" in output.out
    assert output.err == ""


@pytest.mark.parametrize("arguments", [[], ["dance"], ["serve", "--speed", "9"]])
def test_unknown_arguments_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The usage is shown and the exit status is 2."""
    with pytest.raises(SystemExit) as exit_:
        main(arguments)

    assert exit_.value.code == 2
    assert "usage: example-service" in capsys.readouterr().err


def test_the_version_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without explicit arguments, those of the process are used."""
    monkeypatch.setattr(sys, "argv", ["example-service", "--version"])

    with pytest.raises(SystemExit) as exit_:
        main()

    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"{example_service.__version__}\n"
