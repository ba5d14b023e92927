"""Whether the process is shutting down."""

import sys
import threading
from collections.abc import Callable
from typing import Any

from example_service.core.lifecycle import begin_draining, end_draining, is_draining


def test_draining_lasts_from_its_announcement_to_its_withdrawal() -> None:
    """Announcing it twice changes nothing."""
    assert not is_draining()

    begin_draining()
    begin_draining()
    assert is_draining()

    end_draining()
    assert not is_draining()


def test_a_signal_may_interrupt_the_handler_of_another() -> None:
    """A worker gets two signals almost at the same time, and hung if one held a lock."""

    def begin() -> None:
        def interrupt(*_: Any) -> Callable[..., Any]:
            begin_draining()
            return interrupt

        sys.settrace(interrupt)
        begin_draining()
        sys.settrace(None)

    thread = threading.Thread(target=begin, daemon=True)
    thread.start()
    thread.join(10)

    assert not thread.is_alive()
    end_draining()
