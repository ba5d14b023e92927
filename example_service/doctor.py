"""What `example-service doctor` does: show the settings, and find what is wrong with them."""

import threading
from collections.abc import Mapping, Sequence
from typing import TextIO
from urllib.parse import urlsplit

import httpx

from example_service.core.exceptions import SettingProblem, SettingsError
from example_service.core.production import production_problems
from example_service.core.settings import Settings, Source, read_settings, variable_sources
from example_service.core.table import aligned
from example_service.core.variables import DELIMITER, Variable, as_text, variables

UPSTREAM_LIMIT_SECONDS = 2.0

_MASK = "********"


def doctor(output: TextIO) -> int:
    """Examine the settings and what they point to.

    Args:
        output: Where the report is written.

    Returns:
        The exit status: 0 if nothing is wrong, 1 if something is.

    Raises:
        SettingsError: If a variable is invalid, so that there are no settings to examine.
    """
    settings, problems = read_settings()
    if settings is None:
        raise SettingsError(problems)
    unsafe = production_problems(settings)
    in_production = settings.environment == "production"
    faults = [*problems, *(unsafe if in_production else [])]
    upstream, upstream_answers = _check_provider(settings)
    sections: list[tuple[str, list[Sequence[str]]]] = [
        ("Settings", _setting_rows(settings, variable_sources())),
        ("Faults", _problem_rows(faults)),
        ("Production would refuse", [] if in_production else _problem_rows(unsafe)),
        ("Set, but not read", _overlooked_rows(settings, variable_sources())),
        ("Upstreams", [("payment provider", upstream)]),
    ]
    for title, rows in sections:
        if rows:
            output.write(f"{title}\n\n{aligned(rows)}\n\n")
    healthy = not faults and upstream_answers
    output.write("Nothing is wrong.\n" if healthy else "Something is wrong; see above.\n")
    return 0 if healthy else 1


def _setting_rows(settings: Settings, sources: Mapping[str, Source]) -> list[Sequence[str]]:
    known = variables(Settings, settings.circuit_breakers)
    return [(v.name, _shown(v, settings), sources.get(v.name, "default")) for v in known]


def _shown(variable: Variable, settings: Settings) -> str:
    value = variable.value_in(settings)
    if value is None:
        return "(not set)"
    if variable.is_secret:
        return _MASK
    text = as_text(value)
    return text if text.isprintable() else ascii(text)


def _problem_rows(problems: Sequence[SettingProblem]) -> list[Sequence[str]]:
    return [(p.variable, p.problem, p.example) for p in problems]


def _overlooked_rows(settings: Settings, sources: Mapping[str, Source]) -> list[Sequence[str]]:
    """Variables with one underscore where ours have two: `LOG_LEVEL`; often somebody else's."""
    known = variables(Settings, settings.circuit_breakers)
    meant = {v.name.replace(DELIMITER, "_"): v.name for v in known if DELIMITER in v.name}
    return [
        (name, f"did you mean {meant[name]}?", source)
        for name, source in sources.items()
        if name in meant
    ]


def _check_provider(settings: Settings) -> tuple[str, bool]:
    """Say how the payment provider is, and whether that is as it should be."""
    base_url = settings.payment_provider.base_url
    if base_url is None:
        if settings.environment == "development":
            return "the sandbox, which `serve` starts", True
        return "not set", settings.environment == "test"
    problem = _why_unreachable(base_url)
    host = urlsplit(base_url).netloc
    return (f"{host} answers", True) if problem is None else (f"{host}: {problem}", False)


def _why_unreachable(url: str) -> str | None:
    """Ask a server for anything at all; None if it answers in time, whatever it answers."""
    outcome = [f"no answer within {UPSTREAM_LIMIT_SECONDS:g} s"]

    def ask() -> None:
        try:
            with httpx.stream("GET", url, timeout=UPSTREAM_LIMIT_SECONDS):
                outcome.clear()
        except httpx.HTTPError as error:
            outcome[0] = str(error) or type(error).__name__

    # httpx limits each step, and nothing limits the look-up of the name: the thread's end does.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(UPSTREAM_LIMIT_SECONDS)
    return outcome[0] if outcome else None
