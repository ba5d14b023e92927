"""Families as text, held against what the library writes of them."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Enum,
    Gauge,
    Histogram,
    Info,
    Summary,
)
from prometheus_client.core import Exemplar, Metric, Sample, Timestamp
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from example_service.infra.metrics import CircuitBreakerCollector, RequestMetrics
from example_service.infra.metrics.exposition import render
from example_service.infra.metrics.text import plain_text
from example_service.infra.resilience import CircuitBreaker, CircuitBreakerRegistry

FORMATS = [
    "text/plain",
    *(
        f"{kind};version=1.0.0;escaping={escaping}"
        for kind in ("text/plain", "application/openmetrics-text")
        for escaping in ("underscores", "allow-utf-8", "dots", "values")
    ),
]

NAMES = st.sampled_from(
    ["a", "a_b", "Z9", "_", "__a", "with.dot", "with:colon", "9a", "ä", "a\n", "a b"]
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5) | st.sampled_from(
    ['"', "\\", "\n", '\\"\n']
)
NUMBERS = (
    st.integers(-(10**20), 10**20)
    | st.floats()
    | st.sampled_from([0, 999_999, 1_000_000, -0.0, 0.1, 1e6, 123456.7, 1e300, 5e-324, True])
)


@st.composite
def families(draw: st.DrawFn) -> Metric:
    """A family such as any collector might give, plain ones mostly."""
    kind = draw(st.sampled_from(["gauge", "counter", "unknown", "info"]))
    unit = draw(st.sampled_from(["", "", "", "seconds"]))
    family = Metric(f"{draw(NAMES)}{unit and '_' + unit}", draw(TEXTS), kind, unit)
    suffixes = st.sampled_from(["", "_total", "_total", "_created"])
    for _ in range(draw(st.integers(0, 3))):
        labels = draw(st.dictionaries(NAMES, TEXTS, max_size=3))
        name, timestamp, exemplar = family.name + draw(suffixes), None, None
        if draw(st.integers(0, 9)) == 0:
            timestamp = Timestamp(draw(st.integers(0, 10**9)), 5)
        if kind == "counter" and name.endswith("_total") and draw(st.integers(0, 9)) == 0:
            exemplar = Exemplar({"trace": draw(TEXTS)}, 1.0)
        family.samples.append(Sample(name, labels, draw(NUMBERS), timestamp, exemplar))
    return family


class Fixed(Collector):
    """A collector that gives what it was made with."""

    def __init__(self, *collected: Metric) -> None:
        self._collected = collected

    def collect(self) -> Iterable[Metric]:
        """Those families."""
        return self._collected


def holding(*collected: Metric) -> CollectorRegistry:
    """A registry with these families in it."""
    registry = CollectorRegistry()
    registry.register(Fixed(*collected))
    return registry


def with_sample(family: Metric, sample: Sample) -> Metric:
    """The family with one sample in it."""
    family.samples.append(sample)
    return family


def as_the_library_writes(registry: CollectorRegistry, accept: str) -> bytes:
    """The whole text, made by the library alone."""
    encode, _ = choose_encoder(accept)
    return encode(registry)


@pytest.mark.parametrize("accept", FORMATS)
@given(collected=st.lists(families(), max_size=3))
def test_any_family_comes_out_as_the_library_writes_it(
    accept: str, collected: list[Metric]
) -> None:
    """In every format, whatever it is called and whatever is in it."""
    registry = holding(*collected)

    assert render(registry, accept=accept).body == as_the_library_writes(registry, accept)


@pytest.mark.parametrize(
    "value",
    [
        *(0, 999_999, 1_000_000, 12_345_678, 10**20, -1, -(10**20), True),
        *(-0.0, 1e6, 0.1, 5e-324, float("inf"), float("-inf"), float("nan")),
    ],
)
def test_a_number_comes_out_as_the_library_writes_it(value: float) -> None:
    """Go switches to exponents where Python does not yet."""
    registry = holding(with_sample(Metric("a", "", "gauge"), Sample("a", {}, value)))

    assert render(registry).body == as_the_library_writes(registry, "")


@pytest.mark.parametrize(
    ("family", "sample"),
    [
        (Metric("a", "", "gauge"), Sample("a", {}, 1, Timestamp(1, 5))),
        (Metric("a", "", "gauge"), Sample("a_created", {}, 1)),
        (Metric("a", "", "counter"), Sample("a_total", {}, 1, None, Exemplar({"b": "c"}, 1.0))),
        (Metric("a", "", "unknown"), Sample("a", {}, 1)),
        (Metric("a_seconds", "", "gauge", "seconds"), Sample("a_seconds", {}, 1)),
        (Metric("a.b", "", "gauge"), Sample("a.b", {}, 1)),
        (Metric("a", "", "gauge"), Sample("a", {"b.c": "d"}, 1)),
        (Metric("a", "", "gauge"), Sample("a", {"__b": "d"}, 1)),
    ],
)
def test_what_is_not_plain_is_left_to_the_library(family: Metric, sample: Sample) -> None:
    """A time stamp, an exemplar, a unit: nothing of it may be lost."""
    registry = holding(with_sample(family, sample))

    assert plain_text(family, open_metrics=True) is None
    for accept in FORMATS:
        assert render(registry, accept=accept).body == as_the_library_writes(registry, accept)


@pytest.mark.parametrize("accept", FORMATS)
def test_the_library_s_own_kinds_come_out_as_the_library_writes_them(accept: str) -> None:
    """Between plain families, whose order is kept."""
    registry = CollectorRegistry()
    Gauge("first", "A gauge.", ["one"], registry=registry).labels("a").set(1)
    Histogram("second_seconds", "A histogram.", registry=registry).observe(0.2)
    Summary("third", "A summary.", registry=registry).observe(2)
    Counter("fourth", "A counter.", registry=registry).inc(exemplar={"trace": "1"})
    Info("fifth", "An info.", registry=registry).info({"version": "1"})
    Enum("sixth", "A state set.", states=["on", "off"], registry=registry)
    Gauge("seventh", "A gauge.", registry=registry)

    assert render(registry, accept=accept).body == as_the_library_writes(registry, accept)


@pytest.mark.parametrize("accept", FORMATS)
def test_our_own_families_come_out_as_the_library_writes_them(accept: str) -> None:
    """Those of breakers, of odd names too, and of requests."""
    breakers = CircuitBreakerRegistry()
    kept = [CircuitBreaker(name, registry=breakers) for name in ("plain", '"\\\n', "ä.b")]
    requests = RequestMetrics()
    requests.started()
    requests.finished("GET", "/payments/{id}", 200, 0.1)
    registry = CollectorRegistry()
    registry.register(CircuitBreakerCollector(breakers))
    registry.register(requests)

    body = render(registry, accept=accept).body

    assert body == as_the_library_writes(registry, accept)
    assert body.count(b"name=") >= len(kept)


@pytest.mark.parametrize("open_metrics", [False, True])
def test_families_of_breakers_do_not_need_the_library(open_metrics: bool) -> None:
    """A scrape of many breakers would otherwise take twice as long."""
    breakers = CircuitBreakerRegistry()
    kept = CircuitBreaker("quick", registry=breakers)

    texts = [
        plain_text(family, open_metrics=open_metrics)
        for family in CircuitBreakerCollector(breakers).collect()
    ]

    assert None not in texts
    assert f'circuit_breaker_state{{name="{kept.name}"}} 0.0\n' in "".join(filter(None, texts))


def test_what_a_collector_raises_reaches_the_caller() -> None:
    """A broken collector must not look like one without figures."""

    class Broken(Collector):
        def collect(self) -> Iterable[Metric]:
            raise LookupError("no figures")

    registry = CollectorRegistry()
    registry.register(Broken())

    with pytest.raises(LookupError, match="no figures"):
        render(registry)


def test_the_process_s_registry_comes_out_as_the_library_writes_it() -> None:
    """With what Python and the process tell of themselves, as far as it stands still."""
    ours, theirs = (
        {line.rpartition(b" ")[0] for line in text.splitlines()}
        for text in (render(REGISTRY).body, as_the_library_writes(REGISTRY, ""))
    )

    assert ours == theirs
