"""The command line: `example-service serve`, `migrate`, `doctor`, `key` and `replay`."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

import example_service
from example_service.cli import key, replay
from example_service.core.exceptions import SettingProblem, SettingsError, StartError
from example_service.core.output import open_missing_streams, output
from example_service.core.signals import stop_signals

EXIT_FAILURE = 1
EXIT_SETTINGS = 2
EXIT_INTERRUPTED = 130

_OVERRIDES = ("host", "port", "workers")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The command line arguments, without the program name. Defaults to `sys.argv`.

    Returns:
        The exit status: 0 for success, 1 for a failure, 2 for invalid settings or arguments.
    """
    open_missing_streams()
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_SETTINGS
    except replay.ReplayError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_SETTINGS
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return EXIT_FAILURE
    finally:
        output.finish()


def _run(options: argparse.Namespace) -> int:
    if options.command == "key":
        return key.key(options.name, sys.stdout, is_read_only=options.read_only)
    if options.command == "replay":
        return replay.replay(options, sys.stdout)
    if options.command == "serve":
        with stop_signals():
            return _run_service(options)
    return _run_service(options)


def _run_service(options: argparse.Namespace) -> int:
    """Run a command of the service. Importing these takes a second, which other commands save."""
    _check_current_directory()
    _check_propagators()
    from example_service.cli import doctor, migrate, serve  # noqa: PLC0415
    from example_service.core.settings import load_settings  # noqa: PLC0415
    from example_service.migrations import MigrationError  # noqa: PLC0415
    from example_service.server.process import ListenError  # noqa: PLC0415

    if options.command == "doctor":
        return doctor.doctor(sys.stdout)
    try:
        if options.command == "migrate":
            return migrate.migrate(load_settings(), sys.stdout)
        _override(options)
        return serve.serve(load_settings())
    except (ListenError, MigrationError, StartError) as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_FAILURE


def _check_current_directory() -> None:
    """Check that `.env` can be looked for. Workers also start in the current directory.

    Raises:
        SettingsError: The current directory was deleted, or may not be read.
    """
    try:
        Path.cwd().joinpath(".").stat()
    except OSError as error:
        problem = f"cannot be used: {error.strerror}; change to another one"
        raise SettingsError([SettingProblem("(current directory)", problem, "cd /")]) from error


def _check_propagators() -> None:
    """Check a variable without whose propagators FastAPI cannot be imported.

    Raises:
        SettingsError: A propagator is not installed.
    """
    known = {each.name for each in entry_points(group="opentelemetry_propagator")}
    given = [name.strip() for name in os.environ.get("OTEL_PROPAGATORS", "").split(",")]
    if known and not known.issuperset(name for name in given if name not in ("", "none")):
        problem = f"should be some of {', '.join(sorted(known))}; no other propagator is installed"
        example = "OTEL_PROPAGATORS=tracecontext"
        raise SettingsError([SettingProblem("OTEL_PROPAGATORS", problem, example)])


def _override(options: argparse.Namespace) -> None:
    """Let options win over variables, also in workers, which inherit the variables."""
    for name in _OVERRIDES:
        if (value := getattr(options, name)) is not None:
            os.environ[name.upper()] = value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="example-service",
        description="A service that stays up when its dependencies go down. "
        "Settings come from the environment and from .env; see .env.example.",
    )
    parser.add_argument("--version", action="version", version=example_service.__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    serving = commands.add_parser(
        "serve",
        help="serve HTTP until SIGTERM or Ctrl+C",
        description="Serve HTTP. In development, this also starts what the service needs.",
    )
    serving.add_argument("--host", help="address to listen on, instead of HOST")
    serving.add_argument("--port", help="TCP port to listen on, 0 for a free one, instead of PORT")
    serving.add_argument("--workers", help="number of worker processes, instead of WORKERS")
    commands.add_parser(
        "migrate",
        help="bring the schema of the database up to date",
        description="Apply all pending migrations. Safe to run several times at "
        "once, and when there is nothing to do.",
    )
    commands.add_parser(
        "doctor",
        help="show every setting with its source, and what is wrong",
        description="Show every setting with its source, what is unsafe, and whether upstreams "
        "answer. The exit status is 0 if nothing is wrong, 1 if something is, and 2 if the "
        "settings cannot be used.",
    )
    key.add_parser(commands)
    replay.add_parser(commands)
    return parser
