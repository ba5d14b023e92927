"""Whether the process is shutting down."""

from example_service.core.lifecycle import begin_draining, end_draining, is_draining


def test_draining_lasts_from_its_announcement_to_its_withdrawal() -> None:
    """Announcing it twice changes nothing."""
    assert not is_draining()

    begin_draining()
    begin_draining()
    assert is_draining()

    end_draining()
    assert not is_draining()
