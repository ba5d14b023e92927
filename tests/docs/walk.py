"""Follow a page like a reader: start the service, type the commands, compare the answers.

The service is a real process on a free port; commands run in a real shell, in a folder where they
cannot harm the project. Differences from the page:

- the service's URL replaces http://127.0.0.1:8000 in commands, and is replaced back in answers;
- `make` with a target other than `run` only shows what it would do; other tests run some of these
  targets in full;
- if the machine has no curl, `curl.py` takes its place.

An answer must equal the one on the page, except for values that differ each time: see `comparable`.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from tests.docs import curl
from tests.docs.pages import ROOT, Block

ADDRESS = "http://127.0.0.1:8000"
START_SECONDS = 120.0
COMMAND_SECONDS = 300.0
STOP_SECONDS = 60.0

_STARTS_SERVICE = re.compile(
    r"^(?P<settings>(?:[A-Z_]+=\S+ )*)(?:make run|\S*example-service serve)(?P<options>[^#\n]*)",
    re.MULTILINE,
)
_READY = re.compile(r'(?: is ready: |"event":"Serving","url":")(http://[^\s"]+)')
_VOLATILE = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(\+00:00|Z)"), "<time>"),
    (re.compile(r"\b00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]\b"), "<traceparent>"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "<id>"),
    (re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "<uuid>"),
    (re.compile(r"\b\d+\.\d{3,}\b"), "<number>"),
    (re.compile(r'(?<="worker": )\d+'), "<process id>"),
)
_VOLATILE_HEADERS = {"content-length", "date", "retry-after"}


class Walk:
    """A reader's way through a page. Use it as a context manager: it stops what it starts.

    Args:
        folder: An empty folder for files that the commands write.
        project: The project; a copy if the page changes it.
    """

    def __init__(self, folder: Path, *, project: Path = ROOT) -> None:
        self._folder = folder
        self._project = project
        # The pages name programs and recordings relative to the project's folder.
        for environment in (".venv", ".venv-run"):
            (folder / environment).symlink_to(sys.prefix)
        (folder / "docs").symlink_to(project / "docs")
        self._log = folder / "service.log"
        self._service: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._service is not None:
            self._service.kill()
            self._service.wait()

    @property
    def service_log(self) -> str:
        """Everything that the service has printed since its start."""
        return self._log.read_text()

    def follow(self, block: Block) -> None:
        """Run a block of commands, and compare the answer with the block below it."""
        commands = block.text
        if start := _STARTS_SERVICE.search(commands):
            self.stop()
            self.start(start["options"].split(), **_variables(commands, start["settings"]))
            commands = _STARTS_SERVICE.sub("", commands)
        elif ADDRESS in commands and self._service is None:
            self.start()
        answer = self.run(commands)
        if block.output is not None:
            language = block.output.language
            assert comparable(answer, language) == comparable(block.output.text, language)

    def start(self, options: list[str] | None = None, **settings: str) -> None:
        """Start the service like `make run`, and wait until it reports that it is ready."""
        self.run(".venv/bin/python -m example_service migrate")
        with self._log.open("wb") as log:
            self._service = subprocess.Popen(
                [sys.executable, "-m", "example_service", "serve", *(options or [])],
                cwd=self._folder,
                env=self._environment() | {"PORT": "0"} | settings,
                stdout=log,
                stderr=log,
            )
        self.url = ready_url(self._log, self._service)

    def stop(self) -> None:
        """Press Ctrl+C, and check that the service ends cleanly."""
        if self._service is not None:
            self._service.send_signal(signal.SIGINT)
            assert self._service.wait(STOP_SECONDS) == 0, self.service_log
            self._service = None

    def run(self, commands: str) -> str:
        """Run commands in a shell until one fails, and return their output."""
        make_shows = f'make() {{ command make -C "{self._project}" --dry-run "$@" >&2; }}\n'
        done = subprocess.run(
            ["sh", "-e", "-c", make_shows + commands.replace(ADDRESS, self.url)],
            cwd=self._folder,
            env=self._environment(),
            timeout=COMMAND_SECONDS,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{commands}{done.stdout}{done.stderr}"
        return done.stdout.replace(self.url, ADDRESS) if self.url else done.stdout

    def _environment(self) -> dict[str, str]:
        """The variables of this process, with our programs first on PATH."""
        programs = [str(Path(sys.executable).parent), os.environ["PATH"]]
        if shutil.which("curl") is None:
            programs.insert(0, str(curl.install(self._folder)))
        return os.environ | {"PATH": os.pathsep.join(programs), "PYTHONPATH": str(self._project)}


def ready_url(log: Path, service: subprocess.Popen[bytes]) -> str:
    """Wait until the service prints its URL, and return it."""
    deadline = time.monotonic() + START_SECONDS
    while (ready := _READY.search(log.read_text())) is None:
        assert service.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
    return ready[1]


def _variables(commands: str, in_front: str) -> dict[str, str]:
    """The settings that are exported before the service starts, or written before the command."""
    exported = re.findall(r"^export (.+)$", commands, re.MULTILINE)
    words = shlex.split(" ".join([*exported, in_front]))
    return dict(word.split("=", 1) for word in words)


def comparable(answer: str, language: str) -> object:
    """Normalize an answer so that it can be compared with the page.

    For times, ids, trace contexts and numbers with three or more decimals, only the kind matters,
    not the value. The layout of JSON does not matter, nor does the order of HTTP headers. For
    headers with a time or a length, only the name matters.
    """
    if language == "http":
        return comparable_answer(answer)
    if language == "json":
        answer = json.dumps(json.loads(answer), indent=2, sort_keys=True)
    for pattern, placeholder in _VOLATILE:
        answer = pattern.sub(placeholder, answer)
    return answer.strip()


def comparable_answer(answer: str) -> tuple[str, list[str], object]:
    """The status line, headers and JSON body of an HTTP answer, normalized by `comparable`."""
    head, _, body = answer.replace("\r\n", "\n").partition("\n\n")
    status, *headers = head.splitlines()
    return status, sorted(map(_comparable_header, headers)), comparable(body, "json")


def _comparable_header(header: str) -> str:
    name, _, value = header.partition(":")
    masked = "<varies>" if name.lower() in _VOLATILE_HEADERS else comparable(value, "text")
    return f"{name.lower()}: {masked}"
