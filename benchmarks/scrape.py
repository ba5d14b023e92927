"""What the breakers add to a scrape of `/metrics`."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge

from benchmarks.contender import OURS, Contender
from benchmarks.forms import fail, succeed, use
from benchmarks.rounds import Plan, Slice, interleave
from benchmarks.scenario import FAILURE_THRESHOLD
from benchmarks.tables import Table
from example_service.infra.metrics import CircuitBreakerCollector
from example_service.infra.metrics.exposition import render

NATIVE = "three counters and a gauge, labelled"
SHARE_OF_BREAKERS = f"{OURS}, its breakers"
SHARE_OF_OTHERS = f"{OURS}, process, Python and HTTP"

BREAKERS_SCRAPED = 100


async def run(contenders: Sequence[Contender], plan: Plan) -> AsyncIterator[Table]:
    """Yield the table about a scrape.

    Args:
        contenders: Ours, the floor and the rivals.
        plan: How much to time.
    """
    yield await time_scrape(contenders, plan)


async def time_scrape(contenders: Sequence[Contender], plan: Plan) -> Table:
    """The time of a whole scrape, divided by the number of its breakers."""
    (ours,) = [contender for contender in contenders if contender.name == OURS]
    names = [f"scraped {number}" for number in range(BREAKERS_SCRAPED)]
    breakers = [ours.construct(name, FAILURE_THRESHOLD) for name in names]
    for breaker in breakers:
        for function in (succeed, fail):
            await use(ours.forms(breaker), function)
    only_breakers = CollectorRegistry()
    only_breakers.register(CircuitBreakerCollector())
    entrants = {
        OURS: _scraping(REGISTRY),
        SHARE_OF_BREAKERS: _scraping(only_breakers),
        NATIVE: _scraping(_native_metrics(names)),
    }
    samples = await interleave(entrants, replace(plan, rounds=plan.rounds // 4 + 2))
    samples = samples.divided_by(BREAKERS_SCRAPED)
    times = {
        OURS: samples.time(OURS),
        SHARE_OF_BREAKERS: samples.time(SHARE_OF_BREAKERS),
        SHARE_OF_OTHERS: samples.difference(OURS, SHARE_OF_BREAKERS),
        NATIVE: samples.time(NATIVE),
    }
    table = Table(f"A scrape with {BREAKERS_SCRAPED} breakers, per breaker", ["", "µs"])
    for name, nanoseconds in times.items():
        time = nanoseconds.in_microseconds()
        table.rows.append([name, f"{time.median:.1f}"])
        table.figures[name] = {"microseconds": time}
    return table


def _scraping(registry: CollectorRegistry) -> Slice:
    async def run(count: int) -> None:
        for _ in range(count):
            render(registry)

    return run


def _native_metrics(names: Sequence[str]) -> CollectorRegistry:
    """What a breaker would add to a scrape with native Prometheus metrics."""
    registry = CollectorRegistry()
    gauge = Gauge("state", "State.", ["name"], registry=registry)
    counters = [
        Counter(kind, "Calls.", ["name"], registry=registry)
        for kind in ("failures", "successes", "rejections")
    ]
    for name in names:
        gauge.labels(name).set(0)
        for counter in counters:
            counter.labels(name).inc()
    return registry
