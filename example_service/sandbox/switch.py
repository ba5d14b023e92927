"""The current mode of the sandbox, and changes of it."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Protocol

from example_service.sandbox.late import LateCharges
from example_service.sandbox.modes import ModeChange, ModeReport, SandboxMode, Step, steps


class ProviderPort(Protocol):
    """A listener that can refuse connections: the provider's."""

    async def open(self) -> None:
        """Accept connections."""

    async def refuse(self) -> None:
        """Refuse connections and abort existing ones."""


class Switch:
    """The mode of the provider, and the source of a step for each call.

    Args:
        default_seed: The seed for modes that are set without one. None chooses a new random seed
            each time.

    Attributes:
        late_charges: The charges that have not arrived yet. A change of mode does not affect them.
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
        """The current mode."""
        return self._report

    def next_step(self) -> Step:
        """Return the step for a call that has just arrived."""
        return next(self._steps)

    def hang(self, cut: Callable[[], None]) -> None:
        """Register a hanging call. `cut` is called when the mode changes."""
        self._hanging.add(cut)

    def forget(self, cut: Callable[[], None]) -> None:
        """Remove a hanging call whose caller has disconnected."""
        self._hanging.discard(cut)

    async def turn(self, change: ModeChange, port: ProviderPort) -> ModeReport:
        """Change the mode. When this returns, the new mode applies to the next call.

        Setting the same mode again restarts its sequence of faults.

        Raises:
            OSError: If the provider's port cannot be opened again. The mode is then unchanged.
        """
        async with self._turning:
            if change.mode is SandboxMode.REFUSING:
                await port.refuse()
            else:
                await port.open()
            self._report = ModeReport.of(change, self._default_seed)
            self._steps = steps(self._report)
            for cut in tuple(self._hanging):
                cut()
            return self._report
