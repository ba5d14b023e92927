"""The workers of one service ask each other, over sockets in a directory that they share.

The directory is the one that prometheus_client needs for metrics of several processes anyway:
`PROMETHEUS_MULTIPROC_DIR`. Without it a process is alone, and there is nobody to ask.
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

# While this worker is busy itself, time passes in which the others may have answered.
_LOOKS: Final = 20

_LARGEST_PID: Final = 9_999_999
_LONGEST_SOCKET_PATH: Final = 103
"""Bytes that macOS takes; Linux takes four more."""

_SOCKET: Final = re.compile(r"worker_(\d+)\.sock")

# What an answer begins with; where a worker failed at it, nothing comes.
_ANSWERED: Final = b"+"

Answer: TypeAlias = Callable[[bytes], Awaitable[bytes]]


def shared_directory() -> Path | None:
    """Where the workers of this service meet; None in a process that is alone."""
    given = os.environ.get(DIRECTORY_VARIABLE)
    return Path(given) if given else None


def socket_path(directory: Path, pid: int) -> Path:
    """Where the worker of that process id is asked."""
    return directory / f"worker_{pid}.sock"


def has_room_for_sockets(directory: Path) -> bool:
    """Whether the paths of sockets in a directory are as short as the system wants them."""
    return len(os.fsencode(socket_path(directory, _LARGEST_PID))) <= _LONGEST_SOCKET_PATH


class Peers:
    """The other workers of the service, as seen by one.

    Args:
        directory: Where every worker has its socket; None for a process that is alone.
        pid: Process id of this worker; that of this process if left out.
        answer_seconds: How long one that is asked may take.

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
        """Say what gives the answer when others ask this question.

        Args:
            question: One word.
            answer: Takes what was sent with the question, and gives what is sent back.
        """
        self._answers[question] = answer

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Answer the others until the end of the block.

        Where no socket can be made, this worker says so in the log, and is not asked.
        """
        if self._directory is None or not hasattr(socket, "AF_UNIX"):
            yield
            return
        path = socket_path(self._directory, self.pid)
        try:
            server = await asyncio.start_unix_server(self._reply, sock=_private_socket(path))
        except OSError as error:
            logger.warning(
                "No socket could be made at %s: %s. No worker asks this one.", path, error
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
            content: What goes with it.

        Returns:
            The answers by process id. None is of a worker that did not answer in time, or failed
            at it. Workers that are gone are left out.
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
            TimeoutError: It did not come.
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
            logger.debug("A question of another worker did not come to its end in time.")
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
    """A socket that only processes of the same user can reach, as orders come over it."""
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
    """This process among the workers of the service."""
    return Peers(shared_directory())
