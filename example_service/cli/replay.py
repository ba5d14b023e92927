"""The command `example-service replay`: try breaker parameters on recorded calls."""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from math import inf
from pathlib import Path
from typing import Final, TextIO

from example_service.replay.lines import RecordingError
from example_service.replay.parameters import NAMES, ParameterError, ParameterSet
from example_service.replay.recording import Recording
from example_service.replay.report import Report
from example_service.replay.simulation import replay as run
from example_service.replay.suggestion import SUGGESTED, suggest

INSTALL = "pip install 'example-service[replay]'"

_PERCENTAGE: Final = re.compile(r"[0-9]{1,3}(\.[0-9]{1,20})?%?")

_DESCRIPTION = f"""
Run recorded calls through the rules of the circuit breaker, under a simulated clock, and show when
each set of parameters would have opened the circuit and what that would have spared. FILE has a
line for each call: CSV with the columns time, duration and outcome, the same as JSON Lines, or the
access log of this service. The parameters are {", ".join(NAMES)}.
"""


class ReplayError(Exception):
    """The replay failed. The message says why and what to do about it."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line parser."""
    parser = commands.add_parser(
        "replay",
        help="show what breaker parameters would have done with recorded calls",
        description=_DESCRIPTION,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the recorded calls")
    parser.add_argument(
        "--set",
        dest="sets",
        action="append",
        metavar='"NAME: PARAMETER=VALUE ..."',
        help="parameters to try, instead of the defaults; repeat it to compare sets",
    )
    parser.add_argument("--route", help="only requests of this route of an access log")
    parser.add_argument(
        "--suggest",
        metavar="PERCENT",
        help="search for the parameters that spare the most failing calls and refuse at most this "
        "percentage of the healthy ones",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE.svg", help="draw the result to this file"
    )


def replay(options: argparse.Namespace, output: TextIO) -> int:
    """Replay a recording. Nothing is written if it fails.

    Args:
        options: The parsed command line.
        output: The stream to write the tables or the JSON to.

    Returns:
        The exit status, 0.

    Raises:
        ReplayError: An option or a line of the file is invalid, or the result cannot be written.
            The message says which.
    """
    try:
        report = _report(options)
    except (ParameterError, RecordingError) as error:
        raise ReplayError(str(error)) from None
    except OSError as error:
        raise ReplayError(f"{options.file} cannot be read: {error.strerror}") from None
    text = json.dumps(report.document(), indent=2) + "\n" if options.json else report.text()
    with _new_file(options.picture, lambda: _picture(report)):
        _print(text, output)
    return 0


def _report(options: argparse.Namespace) -> Report:
    sets = [_parsed(text) for text in options.sets or ["defaults:"]]
    goal = None if options.suggest is None else _share(options.suggest)
    _check_names([parameters.name for parameters in sets] + ([] if goal is None else [SUGGESTED]))
    if options.picture is not None:
        _check_picture(options.picture, options.file)
    with _open_recording(options.file, options.route) as read:
        suggestion = None if goal is None else suggest(read, sets[0], goal)
        if suggestion is not None and suggestion.parameters is not None:
            sets.append(suggestion.parameters)
        recording = read()
        # The suggestion is comparable with its base only if the same calls count as failing.
        slow_seconds = None if suggestion is None else sets[0].slow_seconds
        replayed = run(recording, sets, slow_seconds)
    file, has_dates = options.file.name, recording.has_dates
    return Report(file, recording.kind, has_dates, replayed, suggestion)


def _parsed(text: str) -> ParameterSet:
    try:
        return ParameterSet.parse(text)
    except ParameterError as error:
        raise ReplayError(f"--set {text!r}: {error}") from None


def _check_names(names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ReplayError(f"--set: there is another set with the name {name!r}; rename one")


def _share(text: str) -> float:
    share = float(text.removesuffix("%")) / 100 if _PERCENTAGE.fullmatch(text) else inf
    if share > 1:
        raise ReplayError(f"--suggest must be a percentage from 0 to 100, not {text!r}")
    return share


def _check_picture(path: Path, recording: Path) -> None:
    """Check the path of the picture before the replay, which may take a long time."""
    if path.suffix.lower() != ".svg":
        raise ReplayError(f"--picture draws SVG; name the file {path.with_suffix('.svg').name}")
    if not path.parent.is_dir():
        raise ReplayError(f"--picture: there is no folder {path.parent}; create it first")
    if path.is_dir():
        raise ReplayError(f"--picture: {path} is a folder; name a file")
    if path.exists() and path.samefile(recording):
        raise ReplayError("--picture would overwrite the recording; name another file")
    if find_spec("matplotlib") is None:
        raise ReplayError(f"--picture needs matplotlib; {INSTALL}")


def _picture(report: Report) -> bytes:
    # Imported on use, because it needs an extra and takes a second.
    from example_service.replay.picture import svg  # noqa: PLC0415

    return svg(report)


@contextmanager
def _new_file(path: Path | None, make_content: Callable[[], bytes]) -> Iterator[None]:
    """Write a file, if there is a path, and put it in its place if the block succeeds."""
    if path is None:
        yield
        return
    content = make_content()
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _reported(path):
            part.write_bytes(content)
        yield
        with _reported(path):
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _print(text: str, output: TextIO) -> None:
    with _reported("The result"):
        output.write(text)
        output.flush()


@contextmanager
def _reported(what: object) -> Iterator[None]:
    """Report what cannot be written. A reader that has exited, as with `| head`, is no error."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ReplayError(f"{what} cannot be written: {error.strerror}") from None


@contextmanager
def _open_recording(path: Path, route: str | None) -> Iterator[Callable[[], Recording]]:
    """A function that reads the file from its beginning, with a progress bar."""
    if path.exists() and not path.is_file():
        raise ReplayError(f"{path} is not a file; write the calls to one first")
    with path.open("rb") as file, _progress(path.stat().st_size) as progress:

        def read() -> Recording:
            file.seek(0)
            return Recording(path, file, route, progress)

        yield read


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar, if stderr is a terminal and tqdm is installed."""
    if not sys.stderr.isatty() or find_spec("tqdm") is None:
        yield lambda _bytes: None
        return
    # Imported on use, because it needs an extra.
    from tqdm import tqdm  # noqa: PLC0415

    with tqdm(total=total, desc="Replaying", unit="B", unit_scale=True, leave=False) as bar:

        def show(completed: int) -> None:
            bar.n = completed
            bar.refresh()

        yield show
