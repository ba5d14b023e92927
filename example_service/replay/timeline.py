"""Calls, failures and states over time, in a limited number of equal spans."""

from array import array
from typing import Final

MAX_SPANS: Final = 600
FIRST_SPAN_SECONDS: Final = 0.25


class Timeline:
    """The calls and failures, and the worst state of each circuit, in each span of time.

    When there are too many spans, each pair is merged into one of twice the length, so that memory
    stays constant.

    Args:
        circuits: The number of circuits.

    Attributes:
        start: When the first span begins, in seconds; None before the first call.
        span_seconds: The length of each span, in seconds.
        calls: How many calls started in each span.
        failures: How many of them failed.
        bands: The worst state of each circuit in each span: 0 for closed, 1 for half-open, 2 for
            open.
    """

    def __init__(self, circuits: int) -> None:
        self.start: float | None = None
        self.span_seconds = FIRST_SPAN_SECONDS
        self.calls = array("Q", [0])
        self.failures = array("Q", [0])
        # The span of the last call: its number, its begin and its end.
        self._counted, self._begins, self._ends = 0, 0.0, 0.0
        self.bands = [array("B", [0]) for _ in range(circuits)]

    def count(self, time: float, *, failed: bool) -> None:
        """Count a call that started at `time`, in seconds."""
        if self._begins <= time < self._ends:
            span = self._counted
        else:
            span = self._counted = self._span(time)
            self._begins = (self.start or 0.0) + span * self.span_seconds
            self._ends = self._begins + self.span_seconds
        self.calls[span] += 1
        if failed:
            self.failures[span] += 1

    def mark(self, circuit: int, since: float, until: float, state: int) -> None:
        """Record that a circuit was in a state from `since` until `until`, in seconds."""
        last = self._span(until)
        band = self.bands[circuit]
        for span in range(self._span(since), last + 1):
            band[span] = max(band[span], state)

    def _span(self, time: float) -> int:
        if self.start is None:
            self.start = time
        while (span := int((time - self.start) / self.span_seconds)) >= MAX_SPANS:
            self._halve()
        if (missing := span + 1 - len(self.calls)) > 0:
            for spans in (self.calls, self.failures, *self.bands):
                spans.extend([0] * missing)
        return max(0, span)

    def _halve(self) -> None:
        self.span_seconds *= 2
        self._ends = self._begins
        for counts in (self.calls, self.failures):
            padded = [*counts, 0]
            counts[:] = array("Q", map(sum, zip(padded[::2], padded[1::2], strict=False)))
        for band in self.bands:
            padded = [*band, 0]
            band[:] = array("B", map(max, zip(padded[::2], padded[1::2], strict=False)))
