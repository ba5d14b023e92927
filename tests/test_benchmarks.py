"""The benchmarks run and print complete tables; no test here checks a speed."""

import gc
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.rounds import Plan, Quartiles, Samples, interleave
from benchmarks.rules import RULES
from benchmarks.tables import Table, Target, write_page

ROOT = Path(__file__).resolve().parent.parent

RIVALS = {
    "circuitbreaker": "circuitbreaker",
    "purgatory": "purgatory",
    "hyx": "hyx",
    "aiobreaker": "aiobreaker",
    "pybreaker": "pybreaker",
    "pyresilience": "pyresilience",
    "aioresilience": "aioresilience",
    "interlock-cb": "interlock",
    "nopanic": "nopanic",
    "fluxgate": "fluxgate",
}

# Replaces the load generator: sends one request and prints the count in the format of wrk.
FAKE_WRK = f"""#!{sys.executable}
import sys, urllib.request
with urllib.request.urlopen(sys.argv[-1], timeout=30) as response:
    assert response.read() == b'{{"item_id":42}}'
print("  1 requests in 1.00s, 0.14MB read")
"""


def benchmark(*arguments: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Run the benchmarks quickly from the command line, with only this folder on PATH."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", *arguments],
        cwd=ROOT,
        env={**os.environ, "PATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )


def tables(printed: str) -> dict[str, list[str]]:
    """The names in the first column of each table, by the table's title."""
    found: dict[str, list[str]] = {}
    for block in re.split(r"^### ", printed, flags=re.MULTILINE)[1:]:
        title, _, body = block.partition("\n")
        rows = [line for line in body.splitlines() if line.startswith("|")]
        found[title] = [row.split("|")[1].strip() for row in rows[2:]]
    return found


@pytest.mark.integration
def test_every_installed_rival_is_measured_beside_ours_and_the_floor(tmp_path: Path) -> None:
    """Each group about breakers prints a table with every library that supports it."""
    results = tmp_path / "results.json"
    run = benchmark("scrape", "calls", "making", "--json", str(results), path=tmp_path)

    assert (run.returncode, run.stderr) == (0, "")
    printed = tables(run.stdout)
    measured = {name for names in printed.values() for name in names}
    installed = {name for name, module in RIVALS.items() if find_spec(module)}
    assert {"example_service", "floor", "bare await"} | installed <= measured
    for title in (
        "A scrape with 100 breakers, per breaker",
        "Closed, the call succeeds, in floors of the same form",
        "Closed, the call fails below the threshold, in floors of the same form",
        "Open, the call is refused, in floors of the same form",
        "100 tasks on one breaker, each call awaits once inside, in floors of the same form",
        "Making a breaker",
        "Memory of a breaker",
        "Memory kept of a refused call",
    ):
        assert "example_service" in printed[title]
    assert {
        "example_service, its breakers",
        "example_service, process, Python and HTTP",
    } <= set(printed["A scrape with 100 breakers, per breaker"])
    for rival in RIVALS.keys() - installed:
        assert re.search(
            rf"^Left out, because not installed: .*\b{rival}\b", run.stdout, re.MULTILINE
        )
    written = json.loads(results.read_text())["groups"]
    titles = [table["title"] for tables in written.values() for table in tables]
    assert titles == list(printed)


@pytest.mark.integration
def test_each_rule_is_measured_beside_the_rivals_that_have_it(tmp_path: Path) -> None:
    """Every rule has a row and a target, and is measured for each library that has it."""
    results = tmp_path / "results.json"
    run = benchmark("rules", "--json", str(results), path=tmp_path)

    assert (run.returncode, run.stderr) == (0, "")
    table, threads = json.loads(results.read_text())["groups"]["rules"]
    assert list(tables(run.stdout)[table["title"]])[: len(RULES)] == list(RULES)
    targets = {target["what"] for target in table["targets"]}
    assert {f"{rule}, in floors" for rule in RULES} <= targets
    rivals = [name for name in ("interlock-cb", "nopanic", "fluxgate") if find_spec(RIVALS[name])]
    libraries = {"example_service", *rivals}
    assert {f"{name}, failure_rate of seconds" for name in libraries} <= set(table["figures"])
    assert libraries - {"fluxgate"} <= set(threads["figures"])


@pytest.mark.integration
def test_a_request_through_the_breakers_transport_is_timed(tmp_path: Path) -> None:
    """It is timed beside the transport that it wraps, with bytes and with a stream as body."""
    run = benchmark("httpx", path=tmp_path)

    assert (run.returncode, run.stderr) == (0, "")
    names = tables(run.stdout)["A request of httpx through MockTransport"]
    for body in ("a body of bytes", "a body that streams"):
        assert {f"MockTransport alone, {body}", f"example_service, {body}"} <= set(names)
    assert {target.partition(" added by ours, ")[0] for target in names[-2:]} == {"microseconds"}


@pytest.mark.integration
def test_a_fleet_is_measured_beside_rivals_that_share_their_state(tmp_path: Path) -> None:
    """Tables show the cost of a call, how fast others follow, and how a large fleet behaves."""
    run = benchmark("fleet", "large-fleet", path=tmp_path)

    assert (run.returncode, run.stderr) == (0, "")
    printed = tables(run.stdout)
    calls = printed["A closed call whose circuit is shared"]
    assert {"example_service, alone", "example_service, in a fleet, its store hangs"} <= set(calls)
    follow = printed["One of 4 processes opens"]
    assert "the others follow, over a directory" in follow
    assert "the others follow, over Valkey, as services that refuse requests" in follow
    assert {"over Valkey", "over a directory"} <= set(printed["100 circuits open at once"])
    assert {"memory of the records in Valkey", "messages in the busiest second, in total"} <= set(
        printed["An outage of 10 processes with 20 circuits each, simulated"]
    )


@pytest.mark.integration
def test_workers_are_loaded_through_uvicorn(tmp_path: Path) -> None:
    """Plain FastAPI and the service answer on real sockets, and their rates are printed."""
    wrk = tmp_path / "wrk"
    wrk.write_text(FAKE_WRK)
    wrk.chmod(0o755)
    run = benchmark("load", path=tmp_path)

    assert (run.returncode, run.stderr) == (0, "")
    names = tables(run.stdout)["Through one uvicorn worker under wrk"]
    assert {
        "bare FastAPI",
        "bare FastAPI, with uvicorn's access log",
        "bare FastAPI, behind its server",
        "example_service",
    } <= set(names)


@pytest.mark.integration
def test_a_missing_load_generator_costs_one_line(tmp_path: Path) -> None:
    """Without wrk, one line says how to install it, and nothing fails."""
    run = benchmark("load", path=tmp_path)

    assert (run.returncode, run.stderr) == (0, "")
    (line,) = [line for line in run.stdout.splitlines() if "wrk" in line]
    assert "apt-get install wrk" in line


@pytest.mark.integration
def test_every_library_calls_a_dependency_that_hangs(tmp_path: Path) -> None:
    """Ours opens after three slow calls, and each rival has a row as well."""
    run = benchmark("hanging", path=tmp_path)

    assert (run.returncode, run.stderr) == (0, "")
    (names,) = tables(run.stdout).values()
    installed = {name for name, module in RIVALS.items() if find_spec(module)}
    assert {"example_service", "example_service, slow calls"} | installed <= set(names)
    [ours] = [line for line in run.stdout.splitlines() if "example_service, slow calls" in line]
    assert re.search(r"\| +open after 3 \| +open \|", ours)


@pytest.mark.integration
def test_a_hanging_database_is_measured_with_the_circuit_and_without(tmp_path: Path) -> None:
    """Refusals, probes and clients without a circuit have a row each."""
    results = tmp_path / "results.json"
    run = benchmark("outage", "--json", str(results), path=tmp_path)

    assert (run.returncode, run.stderr) == (0, "")
    printed = tables(run.stdout)
    assert printed["20 clients of a service whose database hangs"][:4] == [
        "open, POST",
        "open, GET",
        "open, probes",
        "never open",
    ]
    assert printed["Seconds after the database responds again"][:2] == ["open", "never open"]
    waiting, _ = json.loads(results.read_text())["groups"]["outage"]
    slowest = {name: figures["max ms"]["median"] for name, figures in waiting["figures"].items()}
    assert slowest["open, POST"] < slowest["never open"]


@pytest.mark.integration
def test_an_unknown_group_is_refused(tmp_path: Path) -> None:
    """A misspelt group is an error that lists the existing ones."""
    run = benchmark("rule", path=tmp_path)

    assert run.returncode == 2
    assert "scrape, calls, rules, making, httpx, http, load, hanging, outage" in run.stderr


def test_a_target_is_met_up_to_its_bound() -> None:
    """The bound itself counts as met unless it is strict, and stretch targets are marked."""
    at_most = Target(1.3, stretch=1.0)
    judged = [at_most.judge(figure) for figure in (1.0, 1.3, 1.31)]

    assert judged == ["met, stretch too", "met", "NOT MET"]
    assert [Target(1.0, strictly=True).is_met(figure) for figure in (0.99, 1.0)] == [True, False]
    assert [Target(0.7, at_least=True).is_met(figure) for figure in (0.7, 0.69)] == [True, False]


def test_ratios_are_calculated_per_round() -> None:
    """A round that was slow for all entrants does not change the ratio."""
    samples = Samples({"ours": [10.0, 1_000.0, 20.0], "theirs": [20.0, 2_000.0, 40.0]})

    assert samples.ratio("ours", "theirs") == Quartiles(0.5, 0.5, 0.5)
    assert samples.time("ours").median == 20.0


@pytest.fixture
def _still_exempt_from_garbage_collection() -> Iterator[None]:
    """Exempt the objects of the test run again, because the benchmark ends that."""
    yield
    gc.collect()
    gc.freeze()


@pytest.mark.usefixtures("_still_exempt_from_garbage_collection")
async def test_every_entrant_runs_in_every_round() -> None:
    """Each round gives one sample per entrant, and leftovers of a slice are removed."""
    calls: list[str] = []

    async def run(count: int) -> None:
        calls.extend(["call"] * count)

    samples = await interleave({"a": run, "b": run}, Plan(5, slice_seconds=0.0), calls.clear)

    assert {name: len(figures) for name, figures in samples.nanoseconds.items()} == {"a": 5, "b": 5}
    assert calls == []


def test_tables_replace_the_former_ones_on_the_page(tmp_path: Path) -> None:
    """The page keeps its text, and gets new tables for the groups that ran."""
    page = tmp_path / "page.md"
    page.write_text(
        "Words.\n\n<!-- http: begin -->\nold\n<!-- http: end -->\n"
        "<!-- load: begin -->\nkept\n<!-- load: end -->\n"
    )
    write_page(page, {"http": [Table("New", ["", "µs"], [["ours", "1"]])], "load": []})

    written = page.read_text()
    assert "old" not in written
    assert "### New" in written
    assert written.startswith("Words.\n")
    assert "kept" in written
