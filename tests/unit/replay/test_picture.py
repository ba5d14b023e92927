"""The picture of a replay."""

import re
from xml.etree import ElementTree as ET

import pytest

from example_service.replay.calls import FAILURE, SUCCESS, Call
from example_service.replay.parameters import ParameterSet
from example_service.replay.picture import MAX_NAME_LENGTH, svg
from example_service.replay.report import Report
from example_service.replay.simulation import replay

CALLS = [Call(1_795_941_000 + s, 0.1, FAILURE if 5 <= s < 25 else SUCCESS) for s in range(100)]
NAMESPACES = ("http://www.w3.org/", "http://purl.org/", "http://creativecommons.org/")


def drawn(*texts: str, has_dates: bool = True) -> str:
    """The picture of the calls above with some sets."""
    replayed = replay(CALLS, [ParameterSet.parse(text) for text in texts])
    return svg(Report("calls.csv", "CSV", has_dates, replayed)).decode()


@pytest.mark.parametrize("has_dates", [True, False])
def test_it_is_one_self_contained_svg_file(has_dates: bool) -> None:
    """It is valid XML, names each set, the states and the file, and loads nothing."""
    picture = drawn(
        "strict: failure_threshold=3", "never: failure_threshold=50", has_dates=has_dates
    )

    root = ET.fromstring(picture)  # noqa: S314
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = [text.strip() for text in root.itertext() if text.strip()]
    assert {"strict", "never", "closed", "half-open", "open", "calls", "failures"} <= set(texts)
    assert any("calls.csv: 100 calls" in text for text in texts)
    addresses = re.findall(r"\w+://[^\"'<>\s]+", picture)
    assert all(address.startswith(NAMESPACES) for address in addresses)
    assert "<script" not in picture
    assert not re.search(r'href="(?!#)', picture)


def test_equal_replays_have_equal_pictures() -> None:
    """A picture in a repository changes only if its content changes."""
    assert drawn("strict: failure_threshold=3") == drawn("strict: failure_threshold=3")


def test_names_cannot_break_it() -> None:
    """Names are always shown as text, and long ones are shortened."""
    picture = drawn("<b>&$x^2$: failure_threshold=3", f"{'n' * 99}: failure_threshold=3")

    texts = list(ET.fromstring(picture).itertext())  # noqa: S314
    assert "<b>&$x^2$" in texts
    assert "n" * (MAX_NAME_LENGTH - 1) + "…" in texts
