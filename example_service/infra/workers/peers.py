"""Questions between the workers of one service, over sockets in a directory that they share.

The directory is `PROMETHEUS_MULTIPROC_DIR`, which prometheus_client needs anyway for the metrics of
several processes. A process without it has no peers.
"""

import asyncio
import contextlib
import logging
import os
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeAlias

logger = logging.getLogger(__name__)

DIRECTORY_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
ANSWER_SECONDS: Final = 1.0
SOCKETS: Final = "worker_*.sock"

# The time limit is split, because this worker may itself be busy while the others answer.
_LOOKS: Final = 20

_LARGEST_PID: Final = 9_999_999
_LONGEST_SOCKET_PATH: Final = 103
"""Bytes that macOS takes; Linux takes four more."""

_SOCKET: Final = re.compile(r"worker_(\d+)\.sock")

# The first byte of an answer; a worker that fails to answer sends nothing.
_ANSWERED: Final = b"+"

Answer: TypeAlias = Callable[[bytes], Awaitable[bytes]]


def shared_directory() -> Path | None:
    """The directory that the workers of this service share; None in a process without peers."""
    given = os.environ.get(DIRECTORY_VARIABLE)
    return Path(given) if given else None


def socket_path(directory: Path, pid: int) -> Path:
    """The socket of the worker with this process id."""
    return directory / f"worker_{pid}.sock"


def has_room_for_sockets(directory: Path) -> bool:
    """Whether the paths of sockets in a directory are short enough for the system."""
    return len(os.fsencode(socket_path(directory, _LARGEST_PID))) <= _LONGEST_SOCKET_PATH


class Peers:
    """The other workers of the service.

    Args:
        directory: Where every worker has its socket; None for a process without peers.
        pid: Process id of this worker; by default that of this process.
        answer_seconds: How long a worker may take to answer.

    Attributes:
        pid: Process id of this worker.
    """

    def __init__(
        self,
        directory: Path | None,
        *,
        pid: int | None = None,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self.pid = os.getpid() if pid is None else pid
        self._directory = directory
        self._answer_seconds = answer_seconds
        self._answers: dict[str, Answer] = {}

    def answer(self, question: str, answer: Answer) -> None:
        """Register the answer to a question of the other workers.

        Args:
            question: One word.
            answer: Called with the content of the question; returns the content of the answer.
        """
        self._answers[question] = answer

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Answer the others until the end of the block.

        If no socket can be created, this worker logs a warning, and the others cannot ask it.
        """
        if self._directory is None or not hasattr(socket, "AF_UNIX"):
            yield
            return
        path = socket_path(self._directory, self.pid)
        try:
            server = await asyncio.start_unix_server(self._reply, sock=_private_socket(path))
        except OSError as error:
            logger.warning(
                "The socket %s could not be created: %s. Other workers cannot ask this one.",
                path,
                error,
            )
            yield
            return
        try:
            yield
        finally:
            server.close()
            path.unlink(missing_ok=True)

    async def ask(self, question: str, content: bytes = b"") -> dict[int, bytes | None]:
        """Ask all others at once.

        Args:
            question: One word.
            content: Sent with the question.

        Returns:
            The answers by process id; None for a worker that did not answer in time, or failed to.
            Workers that have ended are left out.
        """
        if self._directory is None:
            return {}
        message = question.encode() + b"\n" + content
        answers: dict[int, bytes | None] = {}

        async def ask_one(pid: int, path: Path) -> None:
            try:
                answers[pid] = await self._in_time(_answer_of(path, message))
            except (ConnectionError, FileNotFoundError):
                logger.debug("The worker %d is gone.", pid)
            except OSError:
                # TimeoutError is one, too.
                answers[pid] = None

        others = [
            (int(found[1]), path)
            for path in self._directory.glob(SOCKETS)
            if (found := _SOCKET.fullmatch(path.name)) and int(found[1]) != self.pid
        ]
        await asyncio.gather(*(ask_one(*other) for other in others))
        return answers

    async def _in_time(self, answering: Coroutine[Any, Any, bytes | None]) -> bytes | None:
        """Wait for an answer, for as long as it may take.

        Raises:
            TimeoutError: If it does not come in time.
        """
        asking = asyncio.create_task(answering)
        try:
            for _ in range(_LOOKS):
                done, _ = await asyncio.wait([asking], timeout=self._answer_seconds / _LOOKS)
                if done:
                    return asking.result()
        finally:
            asking.cancel()
        raise TimeoutError

    async def _reply(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(self._answer_seconds):
                question = (await reader.readline()).decode().removesuffix("\n")
                content = await reader.read()
            writer.write(_ANSWERED + await self._answers[question](content))
        except TimeoutError:
            logger.debug("A question of another worker did not arrive completely in time.")
        except Exception:
            logger.exception("A question of another worker could not be answered.")
        finally:
            writer.close()


async def _answer_of(path: Path, message: bytes) -> bytes | None:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(message)
        writer.write_eof()
        answer = await reader.read()
    finally:
        writer.close()
    return answer.removeprefix(_ANSWERED) if answer.startswith(_ANSWERED) else None


def _private_socket(path: Path) -> socket.socket:
    """A socket that only processes of the same user can reach, because it takes commands."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
    except OSError:
        listener.close()
        raise
    return listener


@cache
def this_process() -> Peers:
    """The peers of this process."""
    return Peers(shared_directory())
