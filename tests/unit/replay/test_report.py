"""The report of a replay."""

import json

from example_service.replay.calls import FAILURE, SUCCESS, Call
from example_service.replay.parameters import ParameterSet
from example_service.replay.report import OPENINGS_SHOWN, Report
from example_service.replay.simulation import replay
from example_service.replay.suggestion import Suggestion, of

CALLS = [Call(1000 + s, 0.1, FAILURE if 5 <= s < 25 else SUCCESS) for s in range(100)]
STRICT = ParameterSet.parse("strict: failure_threshold=3 recovery_timeout=10")
NEVER = ParameterSet.parse("never: failure_threshold=50")


def report(*sets: ParameterSet, has_dates: bool = False) -> Report:
    """The report on the calls above."""
    return Report("calls.csv", "CSV", has_dates, replay(CALLS, sets))


def test_the_tables_have_a_row_for_each_set_and_for_each_opening() -> None:
    """Counts are shown with total and share, and times as in the file."""
    text = report(STRICT, NEVER).text()

    assert text == (
        "calls.csv, CSV: 100 calls in 99.1 s, "
        "of which 80 succeeded, 20 failed and 0 were neutral.\n"
        "\n"
        "  set     opened  failing calls spared  healthy calls refused  recovered in\n"
        "  strict  once    16 of 20 (80 %)       14 of 80 (17.5 %)      16.0 s\n"
        "  never   never   0 of 20 (0 %)         0 of 80 (0 %)          -\n"
        "\n"
        "strict:\n"
        "  opened at  why                  closed after  spared  healthy refused\n"
        "  1007.1     3 failures in a row  33.0 s        16      14\n"
    )


def test_dates_are_shown_in_utc() -> None:
    """Points in time are dates if the file contains dates."""
    assert "1970-01-01T00:16:47.100Z" in report(STRICT, has_dates=True).text()


def test_the_document_has_the_same_figures() -> None:
    """The JSON document names the parameters, and contains every opening."""
    document = json.loads(json.dumps(report(STRICT, NEVER).document()))

    assert document["recording"]["calls"] == 100
    strict, never = document["sets"]
    assert strict["parameters"] == {"failure_threshold": 3, "recovery_timeout": 10}
    assert (strict["spared"], strict["failing"]) == (16, 20)
    assert (strict["healthy_refused"], strict["healthy"]) == (14, 80)
    assert strict["seconds_spared"] == 1.6
    assert strict["openings"] == [
        {
            "opened_at": 1007.1,
            "why": "3 failures in a row",
            "closed_at": 1040.1,
            "spared": 16,
            "healthy_refused": 14,
            "recovery_seconds": 16.0,
        }
    ]
    assert (never["opened"], never["openings"]) == (0, [])
    assert document["suggestion"] is None


def test_a_long_list_of_openings_is_shortened_in_the_text_only() -> None:
    """The text shows the first openings and the number of the others."""
    calls = [Call(10.0 * n, 0.1, FAILURE if n % 3 == 0 else SUCCESS) for n in range(60)]
    sets = [ParameterSet.parse("x: failure_threshold=1 success_threshold=1 recovery_timeout=5")]
    many = Report("calls.csv", "CSV", has_dates=False, replayed=replay(calls, sets))

    assert f"and {20 - OPENINGS_SHOWN} times more" in many.text()
    assert len(many.document()["sets"][0]["openings"]) == 20


def test_an_opening_that_never_closed_is_marked() -> None:
    """Without a further call as a probe, the circuit stays open until the recording ends."""
    replayed = replay(CALLS[:10], [STRICT])

    assert "not in the recording" in Report("a", "CSV", has_dates=False, replayed=replayed).text()


def test_a_suggestion_is_shown_with_its_reasons() -> None:
    """They come last in the text, and are in the document beside the parameters."""
    replayed = replay(CALLS, [NEVER, STRICT])
    suggestion = Suggestion(STRICT, ("It spares most.", "It refuses few."))
    shown = Report("a", "CSV", has_dates=False, replayed=replayed, suggestion=suggestion)

    assert shown.text().endswith("\n\nSuggestion:\nIt spares most.\nIt refuses few.\n")
    assert shown.document()["suggestion"] == {
        "parameters": {"failure_threshold": 3, "recovery_timeout": 10},
        "why": ["It spares most.", "It refuses few."],
    }


def test_shares_of_nothing_are_zero() -> None:
    """A recording without failing calls does not cause a division by zero."""
    assert [of(0, 0), of(1, 3), of(1000, 1000)] == [
        "0 of 0 (0 %)",
        "1 of 3 (33.33 %)",
        "1,000 of 1,000 (100 %)",
    ]
