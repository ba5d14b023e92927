"""Work that is repeated in the background."""

import logging

import pytest

from example_service.core.background import KeepGoing

logger = logging.getLogger(__name__)


def logged(caplog: pytest.LogCaptureFixture, *outcomes: Exception | None) -> list[object]:
    """The errors that are logged for work with these consecutive outcomes."""
    keep_going = KeepGoing(logger, "The work failed; it goes on")
    for outcome in outcomes:
        with keep_going:
            if outcome is not None:
                raise outcome
    return [record.__dict__["error"] for record in caplog.records]


def test_a_repeated_error_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The log line includes the traceback, which would be the same each time."""
    assert logged(caplog, OSError("full"), OSError("full"), OSError("full")) == ["OSError"]
    assert caplog.records[0].exc_info is not None


def test_an_error_is_logged_again_after_a_success(caplog: pytest.LogCaptureFixture) -> None:
    """The operator must see that the error has returned."""
    assert logged(caplog, OSError("full"), None, OSError("full")) == ["OSError", "OSError"]


def test_another_error_is_logged_too(caplog: pytest.LogCaptureFixture) -> None:
    """A different error is logged even if the work has not succeeded in between."""
    assert logged(caplog, OSError("full"), KeyError("a")) == ["OSError", "KeyError"]


def test_the_end_of_the_process_is_not_an_error(caplog: pytest.LogCaptureFixture) -> None:
    """`SystemExit` is neither caught nor logged."""
    keep_going = KeepGoing(logger, "The work failed; it goes on")
    with pytest.raises(SystemExit), keep_going:
        raise SystemExit

    assert caplog.records == []
