"""How the supervisor distinguishes hanging workers from starting and serving ones."""

import math
import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

import pytest

from example_service.server.supervisor import (
    FIRST_HEARTBEAT_SECONDS,
    STARTING,
    UNRESPONSIVE_AT_END_SECONDS,
    UNRESPONSIVE_SECONDS,
    _end_with_parent,
    _report_start,
    _Worker,
)

STARTED_AT = 100.0


@pytest.fixture
def pipe() -> tuple[Connection, Connection]:
    """The pipe for a worker's signs of life: the supervisor's end and the worker's end."""
    return multiprocessing.Pipe(duplex=False)


def worker(receiving: Connection) -> _Worker:
    """A worker that was started at a known time; its process is not used."""
    process: Any = None
    return _Worker(process, receiving, STARTED_AT)


def test_a_new_process_has_a_minute_for_its_first_sign_of_life(
    pipe: tuple[Connection, Connection],
) -> None:
    """Otherwise the supervisor would wait forever for a process that was stopped that early."""
    new = worker(pipe[0])

    assert not new.is_unresponsive(STARTED_AT + FIRST_HEARTBEAT_SECONDS, stopping_since=None)
    assert new.is_unresponsive(STARTED_AT + FIRST_HEARTBEAT_SECONDS + 0.1, stopping_since=None)


def test_a_starting_worker_must_keep_giving_signs_of_life(
    pipe: tuple[Connection, Connection],
) -> None:
    """Starting may take long, and the worker does not count as serving until it is done."""
    starting = worker(pipe[0])
    pipe[1].send_bytes(STARTING)
    now = STARTED_AT + 50
    starting.read_heartbeat(now)

    assert not starting.is_serving
    assert not starting.is_unresponsive(now + UNRESPONSIVE_SECONDS, stopping_since=None)
    assert starting.is_unresponsive(now + UNRESPONSIVE_SECONDS + 0.1, stopping_since=None)


def test_a_late_sign_of_starting_does_not_end_serving(
    pipe: tuple[Connection, Connection],
) -> None:
    """The thread and the event loop of a worker may write at the same time."""
    serving = worker(pipe[0])
    for sign in (b".", STARTING):
        pipe[1].send_bytes(sign)
        serving.read_heartbeat(STARTED_AT)

    assert serving.is_serving


def test_a_stopped_process_does_not_delay_the_shutdown(pipe: tuple[Connection, Connection]) -> None:
    """This includes a process that has not given any sign of life yet."""
    new = worker(pipe[0])

    end = STARTED_AT + 1.0 + UNRESPONSIVE_AT_END_SECONDS
    assert new.is_unresponsive(end + 0.1, stopping_since=STARTED_AT + 1.0)


def test_a_slow_process_may_react_to_the_shutdown(pipe: tuple[Connection, Connection]) -> None:
    """On a busy machine, its last sign of life may be older than the limit of the shutdown."""
    slow = worker(pipe[0])
    stop = STARTED_AT + UNRESPONSIVE_AT_END_SECONDS + 1.0

    assert not slow.is_unresponsive(stop, stopping_since=stop)
    assert not slow.is_unresponsive(stop + UNRESPONSIVE_AT_END_SECONDS, stopping_since=stop)


def test_no_signs_of_life_are_expected_once_the_event_loop_has_ended(
    pipe: tuple[Connection, Connection],
) -> None:
    """The process closes its end of the pipe, and then cleans up in silence."""
    ending = worker(pipe[0])
    pipe[1].close()
    ending.read_heartbeat(STARTED_AT)

    assert ending.last_heartbeat_at == math.inf
    assert not ending.is_unresponsive(STARTED_AT + 1e6, stopping_since=STARTED_AT)


def test_a_worker_gives_signs_of_life_before_its_event_loop_does(
    pipe: tuple[Connection, Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It repeats them, so a worker that is stopped while starting is noticed."""
    monkeypatch.setattr("example_service.server.supervisor.ALIVE_SECONDS", 0.001)
    is_alive = threading.Event()
    reporting = threading.Thread(target=_report_start, args=(pipe[1], is_alive))
    reporting.start()
    try:
        assert [pipe[0].recv_bytes() for _ in range(3)] == [STARTING] * 3
    finally:
        is_alive.set()
        reporting.join()


def test_a_worker_that_does_not_stop_ends_without_its_supervisor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise a worker with a blocked event loop would keep the port when the supervisor dies."""
    ends: list[tuple[int, int]] = []
    dead = SimpleNamespace(join=lambda: None)
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: dead)
    monkeypatch.setattr(os, "kill", lambda pid, number: ends.append((pid, number)))
    monkeypatch.setattr(os, "_exit", lambda status: ends.append((os.getpid(), status)))

    _end_with_parent(0.0)

    assert ends == [(os.getpid(), signal.SIGTERM), (os.getpid(), 1)]
