"""The switch between the modes: what holds now, and what happens when it is turned."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Protocol

from example_service.sandbox.late import LateCharges
from example_service.sandbox.modes import ModeChange, ModeReport, SandboxMode, Step, steps


class Door(Protocol):
    """What can refuse connections: the provider's listener."""

    async def open(self) -> None:
        """Accept connections."""

    def refuse(self) -> None:
        """Refuse connections and cut the live ones."""


class Switch:
    """Holds the mode and hands each call its step.

    Args:
        default_seed: Seeds the modes that are asked for without a seed; `None` draws a new one
            each time.

    Attributes:
        late_charges: Those that are on their way. They arrive whatever mode is set meanwhile.
    """

    def __init__(self, default_seed: int | None = None) -> None:
        self.late_charges = LateCharges()
        self._default_seed = default_seed
        self._turning = asyncio.Lock()
        self._hanging: set[Callable[[], None]] = set()
        self._report = ModeReport(mode=SandboxMode.HEALTHY)
        self._steps: Iterator[Step] = steps(self._report)

    @property
    def report(self) -> ModeReport:
        """The mode that holds now."""
        return self._report

    def next_step(self) -> Step:
        """Return what to do to the call that has just arrived."""
        return next(self._steps)

    def hang(self, cut: Callable[[], None]) -> None:
        """Remember a hanging call, to cut it when the mode changes."""
        self._hanging.add(cut)

    def forget(self, cut: Callable[[], None]) -> None:
        """Drop a hanging call whose caller has left."""
        self._hanging.discard(cut)

    async def turn(self, change: ModeChange, door: Door) -> ModeReport:
        """Change the mode; when this returns, the next call already meets the new one.

        Setting a mode again restarts its sequence of faults.

        Raises:
            OSError: If the provider's port cannot be opened again; the mode stays as it was.
        """
        async with self._turning:
            if change.mode is SandboxMode.REFUSING:
                door.refuse()
            else:
                await door.open()
            self._report = ModeReport.of(change, self._default_seed)
            self._steps = steps(self._report)
            for cut in tuple(self._hanging):
                cut()
            return self._report
