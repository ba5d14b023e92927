"""The switch between the modes."""

import asyncio

import pytest

from example_service.sandbox.modes import Act, ModeChange, SandboxMode
from example_service.sandbox.switch import Switch


class FakePort:
    """Records whether the provider accepts connections."""

    def __init__(self) -> None:
        self.is_open = True
        self.broken = False

    async def open(self) -> None:
        """Open after yielding to other tasks, as the real one does."""
        await asyncio.sleep(0)
        if self.broken:
            raise OSError
        self.is_open = True

    async def refuse(self) -> None:
        """Close at once."""
        self.is_open = False


async def test_it_starts_healthy() -> None:
    """A new sandbox accepts connections."""
    switch = Switch()
    assert switch.report.mode is SandboxMode.HEALTHY
    assert switch.next_step().act is Act.ANSWER


@pytest.mark.parametrize("mode", SandboxMode)
async def test_only_refusing_shuts_the_door(mode: SandboxMode) -> None:
    """Every other mode needs connections, even right after refusing them."""
    switch, port = Switch(), FakePort()
    await switch.turn(ModeChange(mode=SandboxMode.REFUSING), port)
    assert not port.is_open
    await switch.turn(ModeChange(mode=mode), port)
    assert port.is_open is (mode is not SandboxMode.REFUSING)


async def test_setting_a_mode_again_restarts_its_sequence() -> None:
    """The same faults come again, so a demonstration can be repeated in one run."""
    switch, port = Switch(default_seed=1), FakePort()
    change = ModeChange(mode=SandboxMode.FLAKY)
    await switch.turn(change, port)
    first = [switch.next_step() for _ in range(30)]
    await switch.turn(change, port)
    assert [switch.next_step() for _ in range(30)] == first


async def test_changing_the_mode_ends_the_calls_that_hang() -> None:
    """Hanging calls end with their mode; calls whose client has left are unaffected."""
    switch, cut = Switch(), list[str]()

    def first() -> None:
        cut.append("first")

    def second() -> None:
        cut.append("second")

    switch.hang(first)
    switch.hang(second)
    switch.forget(second)
    await switch.turn(ModeChange(mode=SandboxMode.HANGING), FakePort())
    assert cut == ["first"]


async def test_changes_of_the_mode_follow_one_another() -> None:
    """After two simultaneous changes, the port fits the mode that applies."""
    switch, port = Switch(), FakePort()
    await switch.turn(ModeChange(mode=SandboxMode.REFUSING), port)
    await asyncio.gather(
        switch.turn(ModeChange(mode=SandboxMode.HEALTHY), port),
        switch.turn(ModeChange(mode=SandboxMode.REFUSING), port),
    )
    assert (switch.report.mode, port.is_open) == (SandboxMode.REFUSING, False)


async def test_a_port_that_cannot_be_opened_leaves_the_mode() -> None:
    """The report never shows a mode that does not apply."""
    switch, port = Switch(), FakePort()
    await switch.turn(ModeChange(mode=SandboxMode.REFUSING), port)
    port.broken = True
    with pytest.raises(OSError):  # noqa: PT011 - raised by the port without a message
        await switch.turn(ModeChange(mode=SandboxMode.HEALTHY), port)
    assert switch.report.mode is SandboxMode.REFUSING
