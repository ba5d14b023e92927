"""The examples in the docstrings of the main entry points run unchanged."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

from example_service.api.dependencies import circuit_breaker
from example_service.infra.resilience import Backoff, CircuitBreaker, FailureRate
from example_service.infra.resilience.httpx import CircuitBreakerTransport
from example_service.infra.resilience.sqlalchemy import guard_engine

ENTRY_POINTS = (
    CircuitBreaker,
    CircuitBreaker.protected,
    FailureRate,
    Backoff,
    CircuitBreakerTransport,
    guard_engine,
    circuit_breaker,
)


@pytest.mark.parametrize("entry_point", ENTRY_POINTS, ids=lambda value: value.__qualname__)
def test_docstring_has_an_example_that_runs(entry_point: Callable[..., Any]) -> None:
    """Each docstring has an example that can be copied and run."""
    examples = re.findall(r"```python\n(.*?)```", inspect.getdoc(entry_point) or "", re.DOTALL)

    assert examples
    for example in examples:
        code = compile(inspect.cleandoc(example), entry_point.__qualname__, "exec")
        exec(code, {"__name__": "__main__"})  # noqa: S102
