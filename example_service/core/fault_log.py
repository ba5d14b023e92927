"""One log line when something fails, and one when it works again."""

import logging
import threading

logger = logging.getLogger(__name__)


class FaultLog:
    """Logs the first failure of several parts that depend on the same thing. Thread-safe.

    Args:
        lost: The line for the first failure; `%s` is replaced by the reason.
        back: The line for when all parts that failed work again.
    """

    def __init__(self, lost: str, back: str) -> None:
        self._lost = lost
        self._back = back
        self._lock = threading.Lock()
        self._failing: set[str] = set()

    def failed(self, part: str, reason: object) -> bool:
        """Note that a part failed. Returns whether this was logged."""
        with self._lock:
            is_first = not self._failing
            self._failing.add(part)
        if is_first:
            logger.warning(self._lost, reason)
        return is_first

    def works(self, part: str) -> None:
        """Note that a part works."""
        with self._lock:
            if part not in self._failing:
                return
            self._failing.remove(part)
            is_last = not self._failing
        if is_last:
            logger.warning(self._back)
