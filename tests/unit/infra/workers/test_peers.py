"""What workers ask each other, and what they learn of those that do not answer."""

import asyncio
import logging
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from example_service.infra.workers.peers import Peers, socket_path


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where workers meet; its path leaves room for sockets, which pytest's may not."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


async def echo(content: bytes) -> bytes:
    """Give back what was sent."""
    return content


async def fail(_: bytes) -> bytes:
    """Have no answer."""
    raise LookupError("no answer")


async def hang(_: bytes) -> bytes:
    """Have no answer in time."""
    await asyncio.Event().wait()
    raise AssertionError


async def test_whoever_is_alone_asks_nobody() -> None:
    """A single process needs no directory, and no socket."""
    alone = Peers(None)
    async with alone.listening():
        assert await alone.ask("figures") == {}


@pytest.mark.parametrize("content", [b"", b"two\nlines", b"x" * 1_000_000])
async def test_all_others_answer(directory: Path, content: bytes) -> None:
    """With what was sent to them, however long; the one that asks is not among them."""
    one, two, three = (Peers(directory, pid=pid) for pid in (1, 2, 3))
    for each in (one, two, three):
        each.answer("echo", echo)
    async with one.listening(), two.listening(), three.listening():
        assert await one.ask("echo", content) == {2: content, 3: content}


async def test_workers_that_ask_each_other_at_once_all_get_an_answer(directory: Path) -> None:
    """Two that are asked at a time do not wait for one another."""
    one, two = Peers(directory, pid=1), Peers(directory, pid=2)

    async def ask_back(_: bytes) -> bytes:
        return (await two.ask("echo", b"back"))[1] or b""

    one.answer("echo", echo)
    two.answer("ask back", ask_back)
    async with one.listening(), two.listening():
        first, second = await asyncio.gather(one.ask("ask back"), one.ask("ask back"))

    assert first == second == {2: b"back"}


async def test_one_that_is_gone_is_left_out(directory: Path) -> None:
    """Also where it left its socket behind, having been killed."""
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(socket_path(directory, 2)))

    assert await Peers(directory, pid=1).ask("echo") == {}


async def test_one_that_hangs_is_not_waited_for(directory: Path) -> None:
    """Whoever asks learns that there is one which has not answered."""
    with socket.socket(socket.AF_UNIX) as hanging:
        hanging.bind(str(socket_path(directory, 2)))
        hanging.listen()

        assert await Peers(directory, pid=1, answer_seconds=0.05).ask("echo") == {2: None}


async def test_one_whose_answer_takes_too_long_counts_as_silent(directory: Path) -> None:
    """It may be in the middle of anything."""
    one, two = Peers(directory, pid=1, answer_seconds=0.05), Peers(directory, pid=2)
    two.answer("hang", hang)
    async with two.listening():
        assert await one.ask("hang") == {2: None}


@pytest.mark.parametrize("question", ["fail", "a question that nobody knows"])
async def test_one_that_fails_to_answer_counts_as_silent(
    directory: Path, question: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its log tells why, and it goes on answering."""
    one, two = Peers(directory, pid=1), Peers(directory, pid=2)
    two.answer("fail", fail)
    two.answer("echo", echo)
    async with two.listening():
        assert await one.ask(question) == {2: None}
        assert await one.ask("echo", b"still there") == {2: b"still there"}

    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_the_asking_worker_s_own_busy_time_does_not_count(directory: Path) -> None:
    """The others have answered meanwhile; it only had no time to look."""
    one, two = Peers(directory, pid=1, answer_seconds=0.2), Peers(directory, pid=2)
    two.answer("echo", echo)
    async with two.listening():
        asking = asyncio.create_task(one.ask("echo", b"here"))
        for _ in range(5):
            await asyncio.sleep(0)
            time.sleep(0.1)  # noqa: ASYNC251 - this is what a busy worker is like
        assert await asking == {2: b"here"}


@pytest.mark.parametrize("name", ["worker_x.sock", "worker_.sock", "worker_5.sock.old"])
async def test_files_of_others_in_the_directory_are_let_be(directory: Path, name: str) -> None:
    """Somebody may have chosen a directory that has more in it."""
    (directory / name).touch()
    assert await Peers(directory, pid=1).ask("echo") == {}


async def test_whoever_asks_and_never_ends_its_question_is_let_go(directory: Path) -> None:
    """A connection to a worker is no place to wait for ever."""
    two = Peers(directory, pid=2, answer_seconds=0.05)
    async with two.listening():
        reader, writer = await asyncio.open_unix_connection(socket_path(directory, 2))
        writer.write(b"echo\n")
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()


async def test_the_socket_is_private_and_goes_with_the_block(directory: Path) -> None:
    """Orders come over it: only processes of the same user may."""
    path = socket_path(directory, 1)
    async with Peers(directory, pid=1).listening():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    assert not path.exists()


async def test_a_socket_left_behind_under_the_same_process_id_is_replaced(directory: Path) -> None:
    """In a container process ids come again soon."""
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(socket_path(directory, 2)))
    one, two = Peers(directory, pid=1), Peers(directory, pid=2)
    two.answer("echo", echo)

    async with two.listening():
        assert await one.ask("echo", b"here") == {2: b"here"}


async def test_a_path_too_long_for_a_socket_is_told_of(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The worker serves all the same, and is not asked."""
    deep = directory / ("d" * 120)
    deep.mkdir()
    with caplog.at_level(logging.WARNING):
        async with Peers(deep, pid=1).listening():
            assert [record.levelname for record in caplog.records] == ["WARNING"]
            assert await Peers(deep, pid=2).ask("echo") == {}
