"""Signals that arrive before the server has its own handlers, and when a terminal is closed."""

import signal
from collections.abc import Iterator

import pytest

from example_service.core.signals import stop_signals


@pytest.fixture(autouse=True)
def terminal() -> Iterator[None]:
    """Do not ignore SIGHUP, as these tests would if they were started with `nohup`."""
    former = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, former)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_the_server_runs_ends_with_status_0(number: signal.Signals) -> None:
    """The first process of a container would otherwise ignore it."""
    with stop_signals(), pytest.raises(SystemExit) as ended:
        signal.raise_signal(number)

    assert ended.value.code == 0


def test_the_end_of_a_terminal_stops_the_server_like_sigterm() -> None:
    """The handler of the server gets SIGTERM, so it drains."""
    got: list[int] = []
    with stop_signals():
        signal.signal(signal.SIGTERM, lambda number, _: got.append(number))
        signal.raise_signal(signal.SIGHUP)

    assert got == [signal.SIGTERM]


def test_nohup_stays_in_effect() -> None:
    """A service that was started to outlive its terminal does."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with stop_signals():
        signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_former_handlers_are_restored() -> None:
    """Other commands of the same process keep theirs."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    former = [signal.getsignal(number) for number in numbers]
    with stop_signals():
        assert [signal.getsignal(number) for number in numbers] != former

    assert [signal.getsignal(number) for number in numbers] == former
