"""A store in a directory, for workers on one machine.

    circuits         the epoch, the counter and the number of records as JSON, followed by one line
                     for each record; replaced atomically while locked
    circuits.lock    the lock file
    member.NAME      the time of a member's last heartbeat

Times are on the monotonic clock, which all processes of a machine share.
"""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeVar
from urllib.parse import quote

from example_service.core.fault_log import FaultLog
from example_service.infra.fleet.record import Record, record_from_json
from example_service.infra.fleet.store import Beat, Change, Notice, Snapshot, StoreError, Written
from example_service.infra.workers.shared_directory import (
    directory_faults,
    locked,
    make_directory,
    replace_file,
)

FILE: Final = "circuits"
POLL_SECONDS: Final = 0.05
SILENT_SECONDS: Final = 3.0

_LOCK_SECONDS: Final = 0.3

T = TypeVar("T")


class _Kept(NamedTuple):
    """A record, when it expires in milliseconds, and its line in the file."""

    record: Record
    ends: int
    line: str


class _Header(NamedTuple):
    """The first line of the file."""

    epoch: str
    counter: int
    records: int


class _Contents(NamedTuple):
    """The parsed contents of the file."""

    epoch: str
    counter: int
    kept: dict[str, _Kept]

    def record(self, name: str) -> Record:
        """The record of the circuit called `name`; if there is none, an empty one."""
        return self.kept[name].record if name in self.kept else Record()


class _DamagedFileError(ValueError):
    """The file cannot be parsed."""


class DirectoryStore:
    """A store in a directory.

    Args:
        directory: The directory. It is created if it is missing.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file = directory / FILE
        self._lock = directory / f"{FILE}.lock"
        # Few of the thousands of lines change between two reads, so parsed lines are cached.
        self._parsed: dict[str, tuple[str, _Kept]] = {}

    @property
    def faults(self) -> FaultLog:
        """The fault log of the directory, which the reports and metrics of this process share."""
        return directory_faults(self._directory)

    async def connect(self) -> None:
        """Create the directory if it is missing, and the file if it is missing or damaged."""
        await self._in_thread(self._prepare)

    async def beat(self, member: str, known: int) -> Beat:
        """Write the member's own file. This fails if the directory is not writable."""
        return await self._in_thread(lambda: self._beat(member, known))

    async def read(self) -> Snapshot:
        """Read all records from the file."""
        contents = await self._in_thread(self._load)
        records = {name: kept.record for name, kept in contents.kept.items()}
        return Snapshot(_now(), contents.epoch, contents.counter, records)

    async def write(self, changes: Sequence[Change], known: int) -> Written:
        """Replace the file while it is locked."""
        return await self._in_thread(lambda: self._write(changes, known))

    async def changes(self) -> AsyncIterator[Notice | None]:
        """Poll the modification time of the file, 20 times a second."""
        seen: object = None
        while True:
            try:
                status = self._file.stat()
            except OSError as error:
                raise StoreError(str(error)) from error
            if seen != (now := (status.st_mtime_ns, status.st_ino)):
                seen = now
                yield None
            await asyncio.sleep(POLL_SECONDS)

    async def close(self, member: str) -> None:
        """Remove the member's own file."""

        def remove() -> None:
            self._member_file(member).unlink(missing_ok=True)

        try:
            await self._in_thread(remove)
        except StoreError:
            return

    def _prepare(self) -> None:
        make_directory(self._directory)
        if self._is_usable():
            return
        with locked(self._lock, exclusive=True, wait_seconds=_LOCK_SECONDS):
            if not self._is_usable():
                self._save(_Contents(uuid.uuid4().hex, 0, {}))

    def _is_usable(self) -> bool:
        try:
            self._load()
        except (FileNotFoundError, _DamagedFileError):
            return False
        return True

    def _beat(self, member: str, known: int) -> Beat:
        replace_file(self._member_file(member), str(_now()))
        with self._file.open(errors="replace") as file:
            header = self._header(file.readline())
        if header.counter < known:
            self._write((), known)
        return Beat(_now(), header.epoch, header.counter, self._members())

    def _members(self) -> int:
        since = _now() - 1000 * SILENT_SECONDS
        return sum(_beaten_at(path) > since for path in self._directory.glob("member.*"))

    def _write(self, changes: Sequence[Change], known: int) -> Written:
        with locked(self._lock, exclusive=True, wait_seconds=_LOCK_SECONDS):
            contents = self._load()
            now, counter = _now(), max(contents.counter, known)
            accepted = set()
            for name, expected, record, kept in changes:
                if contents.record(name).version == expected:
                    counter += 1
                    contents.kept[name] = _kept(name, record.with_version(counter), now + kept)
                    accepted.add(name)
            if counter != contents.counter:
                self._save(contents._replace(counter=counter))
        current = {change.name: contents.record(change.name) for change in changes}
        return Written(now, frozenset(accepted), current)

    def _load(self) -> _Contents:
        first, *lines = self._file.read_text(errors="replace").splitlines() or [""]
        header, now, parsed = self._header(first), _now(), {}
        if len(lines) != header.records:
            raise self._damaged()
        kept = {}
        for line in lines:
            parsed[line] = name, entry = self._parsed.get(line) or self._parse(line)
            if now < entry.ends:
                kept[name] = entry
        self._parsed = parsed
        return _Contents(header.epoch, header.counter, kept)

    def _header(self, line: str) -> _Header:
        try:
            epoch, counter, records = json.loads(line)
            return _Header(str(epoch), int(counter), int(records))
        except (ValueError, TypeError) as error:
            raise self._damaged() from error

    def _parse(self, line: str) -> tuple[str, _Kept]:
        try:
            name, version, ends, body = line.split("\t")
            return json.loads(name), _Kept(record_from_json(int(version), body), int(ends), line)
        except ValueError as error:
            raise self._damaged() from error

    def _damaged(self) -> _DamagedFileError:
        return _DamagedFileError(f"{self._file} is damaged")

    def _save(self, contents: _Contents) -> None:
        header = _Header(contents.epoch, contents.counter, len(contents.kept))
        lines = [json.dumps(header), *(entry.line for entry in contents.kept.values())]
        replace_file(self._file, "\n".join(lines))

    def _member_file(self, member: str) -> Path:
        return self._directory / f"member.{quote(member, safe='')}"

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Run file operations in a thread, so that they do not block the event loop.

        Raises:
            StoreError: The work failed.
        """
        try:
            return await asyncio.to_thread(work)
        except (OSError, _DamagedFileError) as error:
            raise StoreError(str(error)) from error


def _beaten_at(path: Path) -> float:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def _kept(name: str, record: Record, ends: int) -> _Kept:
    # JSON escapes tabs and newlines, so neither can be part of a field.
    line = "\t".join((json.dumps(name), str(record.version), str(ends), record.to_json()))
    return _Kept(record, ends, line)


def _now() -> int:
    return time.monotonic_ns() // 1_000_000
