"""The page about the sandbox matches the code."""

from example_service.sandbox.modes import (
    DEFAULT_FAILURE_RATE,
    DEFAULT_LATENCY_SECONDS,
    ModeChange,
    SandboxMode,
)
from tests.docs.pages import ROOT, table_rows

SANDBOX = ROOT / "docs" / "sandbox.md"


def test_modes_of_the_sandbox_are_documented() -> None:
    """The table lists all modes in their order."""
    assert [row[0] for row in table_rows(SANDBOX, "modes")] == list(SandboxMode)


def test_parameters_of_modes_are_documented() -> None:
    """The table lists the parameters of each mode and their defaults."""
    defaults = {
        "latency_seconds": str(DEFAULT_LATENCY_SECONDS),
        "failure_rate": str(DEFAULT_FAILURE_RATE),
        "seed": "random",
    }
    given = [name for name in ModeChange.model_fields if name != "mode"]

    assert [row[:2] for row in table_rows(SANDBOX, "parameters")] == [
        [name, defaults[name]] for name in given
    ]
