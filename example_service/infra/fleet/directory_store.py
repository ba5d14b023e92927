"""A directory as the store, for the workers of one machine.

    circuits         epoch, counter and number of records, as JSON, and a line for each record;
                     replaced under the lock
    circuits.lock    the lock
    member.NAME      written at each beat of a member

The clock is the monotonic one, which all processes of a machine share.
"""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeVar
from urllib.parse import quote

from example_service.infra.fleet.record import Record, record_from_json
from example_service.infra.fleet.shared_directory import locked, replace_file
from example_service.infra.fleet.store import Beat, Change, Notice, Snapshot, StoreError, Written

FILE: Final = "circuits"
POLL_SECONDS: Final = 0.05
SILENT_SECONDS: Final = 3.0

_LOCK_SECONDS: Final = 0.3

T = TypeVar("T")


class _Kept(NamedTuple):
    """A record, when it expires, and its line in the file."""

    record: Record
    ends: int
    line: str


class _Header(NamedTuple):
    """The first line of the file."""

    epoch: str
    counter: int
    records: int


class _Contents(NamedTuple):
    """What is in the file."""

    epoch: str
    counter: int
    kept: dict[str, _Kept]

    def record(self, name: str) -> Record:
        """The record of a name; one of version 0 if there is none."""
        return self.kept[name].record if name in self.kept else Record()


class _DamagedFileError(ValueError):
    """The file has other contents than this module writes."""


class DirectoryStore:
    """A directory as the store.

    Args:
        directory: Which one; it has to exist.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file = directory / FILE
        self._lock = directory / f"{FILE}.lock"
        # Of thousands of lines, few differ from those that were read before.
        self._parsed: dict[str, tuple[str, _Kept]] = {}

    @property
    def address(self) -> str:
        """The path of the directory."""
        return str(self._directory)

    async def connect(self) -> None:
        """Create the file, or replace one that is damaged."""
        await self._in_thread(self._prepare)

    async def beat(self, member: str, known: int) -> Beat:
        """Write the member's own file, which fails where nothing can be written."""
        return await self._in_thread(lambda: self._beat(member, known))

    async def read(self) -> Snapshot:
        """Read the file."""
        contents = await self._in_thread(self._load)
        records = {name: kept.record for name, kept in contents.kept.items()}
        return Snapshot(_now(), contents.epoch, contents.counter, records)

    async def write(self, changes: Sequence[Change], known: int) -> Written:
        """Replace the file under the lock."""
        return await self._in_thread(lambda: self._write(changes, known))

    async def changes(self) -> AsyncIterator[Notice | None]:
        """Look at the file's time twenty times a second."""
        seen: object = None
        while True:
            try:
                status = self._file.stat()
            except OSError as error:
                raise StoreError(_text(error)) from error
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
            parsed[line] = name, one = self._parsed.get(line) or self._parse(line)
            if now < one.ends:
                kept[name] = one
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
        lines = [json.dumps(header), *(one.line for one in contents.kept.values())]
        replace_file(self._file, "\n".join(lines))

    def _member_file(self, member: str) -> Path:
        return self._directory / f"member.{quote(member, safe='')}"

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Do work on files where it keeps no call waiting.

        Raises:
            StoreError: It failed.
        """
        try:
            return await asyncio.to_thread(work)
        except (OSError, _DamagedFileError) as error:
            raise StoreError(_text(error)) from error


def _beaten_at(path: Path) -> float:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def _kept(name: str, record: Record, ends: int) -> _Kept:
    # JSON has neither tabs nor ends of lines.
    line = "\t".join((json.dumps(name), str(record.version), str(ends), record.to_json()))
    return _Kept(record, ends, line)


def _now() -> int:
    return time.monotonic_ns() // 1_000_000


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
