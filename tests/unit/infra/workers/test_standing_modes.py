"""The file in which the workers keep the modes that hold for names."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from example_service.infra.resilience import Mode, NamedMode
from example_service.infra.resilience.testing import FakeClock
from example_service.infra.workers.standing_modes import StandingModes

FORCED = NamedMode(Mode.FORCED_OPEN, "Umbau", None)


@pytest.fixture(params=["alone", "with others"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """Where workers meet, or None of a process that is alone."""
    return tmp_path if request.param == "with others" else None


def test_nothing_holds_at_first(directory: Path | None) -> None:
    """There is no file yet."""
    assert StandingModes(directory).read() == {}


def test_what_was_written_last_holds(directory: Path | None) -> None:
    """For each name by itself; none takes the name out."""
    modes = StandingModes(directory)
    modes.write("shop", FORCED)
    modes.write("stock \u2028 \U0001f600", FORCED)
    modes.write("shop", FORCED._replace(mode=Mode.SHADOW))
    assert modes.read()["shop"].mode is Mode.SHADOW
    modes.write("shop", None)
    modes.write("nobody", None)
    assert modes.read() == {"stock \u2028 \U0001f600": FORCED}


def test_time_passes_for_all(directory: Path | None) -> None:
    """What has ended has no seconds left, and goes with the next writing."""
    clock = FakeClock()
    modes = StandingModes(directory, clock=clock)
    modes.write("shop", FORCED._replace(seconds=60.0))
    clock.advance(45.0)
    assert modes.read()["shop"].seconds == 15.0
    clock.advance(15.0)
    assert modes.read()["shop"].seconds == 0.0
    modes.write("stock", FORCED)
    assert list(modes.read()) == ["stock"]


def test_others_read_what_one_has_written(tmp_path: Path) -> None:
    """And whoever comes later."""
    StandingModes(tmp_path).write("shop", FORCED)
    assert StandingModes(tmp_path).read() == {"shop": FORCED}


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    """Each writes the whole file, one after another."""
    names = [f"host {number}" for number in range(50)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: StandingModes(tmp_path).write(name, FORCED), names))
    assert set(StandingModes(tmp_path).read()) == set(names)


def test_what_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    """The caller learns of it."""
    modes = StandingModes(tmp_path)
    modes.write("shop", FORCED)
    (tmp_path / "modes.json.new").mkdir()
    with pytest.raises(OSError, match="directory"):
        modes.write("shop", None)
    assert modes.read() == {"shop": FORCED}
