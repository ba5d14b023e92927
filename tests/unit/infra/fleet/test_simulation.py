"""The whole protocol in virtual time, with a store and a bus that fail."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from example_service.infra.fleet.record import Record
from tests.unit.infra.fleet.simulated_breakers import RULES
from tests.unit.infra.fleet.simulated_store import now
from tests.unit.infra.fleet.simulation import NAME, Process, World, in_world
from tests.virtual_loop import run_virtually

CLOSED_WITHIN = 45.0
"""Seconds: the longest wait, the deadline of a hung lease, two probes and the reconnection."""


@in_world(4)
async def test_when_one_process_opens_the_others_follow(world: World) -> None:
    """All circuits are open a tenth of a second after the first."""
    await world.leave_traffic_to_the_first()
    world.dependency.is_down = True
    # It starts a call every 0.1 s, and each takes 0.2 s to fail.
    await asyncio.sleep(0.75)
    assert world.states() == ["open"] * 4


@in_world(8)
async def test_all_processes_together_send_no_more_probes_than_one(world: World) -> None:
    """Two successes close all circuits, so there are two probes, although three may run at once."""
    world.dependency.is_down = True
    await asyncio.sleep(4)
    world.dependency.is_down = False
    await asyncio.sleep(8)
    assert world.states() == ["closed"] * 8
    assert world.dependency.probes == RULES.success_threshold


@in_world(100)
async def test_most_processes_do_not_request_a_lease(world: World) -> None:
    """All notice the end of the wait in the same moment, but only a few write to the store."""
    world.dependency.is_down = True
    await asyncio.sleep(2)
    world.dependency.is_down = False
    before = world.server.writes
    await asyncio.sleep(6)
    assert world.states() == ["closed"] * 100
    assert world.server.writes - before < 50


@in_world(8)
async def test_a_failed_probe_opens_all_circuits_for_longer(world: World) -> None:
    """The fleet shares its backoff: eight processes wait as long as one would."""
    world.dependency.is_down = True
    await asyncio.sleep(60)
    assert world.states() == ["open"] * 8
    # A single process would wait for 5, 10, 20 and 20 seconds, with two probes each.
    assert world.dependency.probes <= 2 * 4


@in_world(3)
async def test_the_lease_of_a_killed_prober_expires(world: World) -> None:
    """After its deadline, another process probes, and the circuit closes for all."""
    world.dependency.is_down = True
    await asyncio.sleep(4)
    await world.dependency.probing.wait()
    record = world.server.record(NAME)
    owners = {lease.owner for lease in record.leases.values()}
    for process in [killed for killed in world.processes if killed.member.name in owners]:
        await process.kill()
        world.processes.remove(process)
    world.dependency.is_down = False
    await asyncio.sleep(RULES.probe_timeout + 3)
    assert set(world.states()) == {"closed"}


@in_world(3, quorum=2)
async def test_one_process_with_a_broken_network_is_open_alone(world: World) -> None:
    """With a quorum of two, one process opens only its own circuit, and recovers on its own."""
    await world.leave_traffic_to_the_first()
    world.dependency.is_down = True
    await asyncio.sleep(2)
    assert world.states() == ["open", "closed", "closed"]
    world.dependency.is_down = False
    await asyncio.sleep(6)
    assert world.states() == ["closed"] * 3


@in_world(3, quorum=2)
async def test_two_processes_that_open_are_a_quorum(world: World) -> None:
    """The second vote also opens the circuit of the third process, which had no failure."""
    world.processes[2].is_idle = True
    world.dependency.is_down = True
    await asyncio.sleep(2)
    assert world.states() == ["open"] * 3


def _hang(world: World) -> None:
    world.server.faults.hangs = True


def _make_read_only(world: World) -> None:
    world.server.faults.is_read_only = True


def _restart_empty(world: World) -> None:
    world.server.restart_empty()


@pytest.mark.parametrize("fault", [_hang, _make_read_only, _restart_empty])
@in_world(3)
async def test_without_the_store_each_process_recovers_on_its_own(
    world: World, fault: Callable[[World], None]
) -> None:
    """A store that fails while the circuit is open does not keep it open longer."""
    world.dependency.is_down = True
    await asyncio.sleep(2)
    fault(world)
    world.dependency.is_down = False
    await asyncio.sleep(9)
    assert world.states() == ["closed"] * 3


@in_world(3)
async def test_votes_from_a_time_without_the_store_are_merged(world: World) -> None:
    """A circuit that one process opened on its own opens for all once the store is back."""
    _hang(world)
    await asyncio.sleep(2)
    await world.leave_traffic_to_the_first()
    world.dependency.is_down = True
    await asyncio.sleep(2)
    assert world.states() == ["open", "closed", "closed"]
    world.server.faults.hangs = False
    # The next attempt comes within 1.3 seconds, and an earlier one may still be waiting.
    await asyncio.sleep(2.5)
    assert world.states() == ["open"] * 3


@in_world(2)
async def test_a_store_that_restarts_empty_gets_the_records_back(world: World) -> None:
    """Modes and votes survive the restart as long as one process knows them."""
    first = world.processes[0].member
    await first.order(NAME, "forced_open", "maintenance", None, opens=True)
    await asyncio.sleep(1)
    world.server.restart_empty()
    await asyncio.sleep(2)
    order = world.server.record(NAME).order
    assert order is not None
    assert order.mode == "forced_open"
    assert world.states() == ["open"] * 2


@in_world(2)
async def test_a_record_that_the_store_has_evicted_is_written_back(world: World) -> None:
    """An operator's mode lasts until the operator ends it."""
    first = world.processes[0].member
    await first.order(NAME, "forced_open", "maintenance", None, opens=True)
    await asyncio.sleep(1)
    world.server.lose(NAME)
    # All records are read every 45 seconds at the latest.
    await asyncio.sleep(46)
    assert world.states() == ["open"] * 2
    order = world.server.record(NAME).order
    assert order is not None
    assert order.mode == "forced_open"


@pytest.mark.parametrize(
    ("is_noticed_immediately", "is_evicted"), [(True, False), (False, False), (False, True)]
)
@in_world(3)
async def test_the_clock_of_the_store_may_be_set_back(
    world: World, is_noticed_immediately: bool, is_evicted: bool
) -> None:
    """An open circuit does not stay open for an hour longer, and can open again."""
    world.dependency.is_down = True
    await asyncio.sleep(2)
    world.server.faults.hangs = not is_noticed_immediately
    world.server.skew -= 3_600_000
    if is_evicted:
        world.server.lose(NAME)
    await asyncio.sleep(1)
    world.server.faults.hangs = False
    world.dependency.is_down = False
    await asyncio.sleep(9)
    assert world.states() == ["closed"] * 3
    world.dependency.is_down = True
    await asyncio.sleep(1.5)
    assert world.states() == ["open"] * 3
    assert world.server.record(NAME).is_open


@in_world(3)
async def test_a_mode_reaches_processes_that_were_cut_off(world: World) -> None:
    """The mode survives the process that set it, and applies once the others can read again."""
    world.processes[2].store.is_cut_off = True
    await asyncio.sleep(2)
    await world.processes[0].member.order(NAME, "forced_open", "maintenance", None, opens=True)
    await world.processes.pop(0).kill()
    await asyncio.sleep(1)
    assert world.states() == ["open", "closed"]
    world.processes[1].store.is_cut_off = False
    await asyncio.sleep(2)
    assert world.states() == ["open", "open"]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "down",
                "up",
                "hang",
                "run",
                "read_only",
                "lossy",
                "restart_empty",
                "cut_off",
                "kill",
                "force_open",
                "reset",
            ]
        ),
        st.integers(0, 3),
        st.floats(0.05, 9.0),
    ),
    max_size=14,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS, seed=st.integers(0, 1000), quorum=st.sampled_from([1, 2]))
def test_after_the_last_fault_all_agree(
    steps: list[tuple[str, int, float]], seed: int, quorum: int
) -> None:
    """After any faults, leases stay within the limit, and all circuits close in bounded time."""

    async def scenario() -> None:
        world = World(4, seed=seed, quorum=quorum)
        async with world.running():
            for step, number, seconds in steps:
                await _take(world, step, number)
                await asyncio.sleep(seconds)
                _check(world)
            await _heal(world)
            await asyncio.sleep(CLOSED_WITHIN)
            _check(world)
            assert set(world.states()) <= {"closed"}
            assert len({_view(world, process) for process in world.processes}) == 1

    run_virtually(scenario())


async def _take(world: World, step: str, number: int) -> None:
    faults = world.server.faults
    process = world.processes[number % len(world.processes)]
    match step:
        case "down" | "up":
            world.dependency.is_down = step == "down"
        case "hang":
            faults.hangs = True
        case "run":
            faults.hangs = faults.is_read_only = False
        case "read_only":
            faults.is_read_only = True
        case "lossy":
            faults.drop, faults.repeat, faults.longest_delay = 0.3, 0.3, 3.0
        case "restart_empty":
            world.server.restart_empty()
        case "cut_off":
            process.store.is_cut_off = not process.store.is_cut_off
        case "kill" if len(world.processes) > 2:
            world.processes.remove(process)
            await process.kill()
        case "force_open" | "reset" if process.member.is_connected:
            mode = "forced_open" if step == "force_open" else None
            order = process.member.order(NAME, mode, "by hand", 4.0, opens=mode is not None)
            await asyncio.gather(order, return_exceptions=True)


async def _heal(world: World) -> None:
    world.dependency.is_down = False
    for process in world.processes:
        process.store.is_cut_off = False
    faults = world.server.faults
    faults.hangs = faults.is_read_only = False
    faults.drop = faults.repeat = faults.longest_delay = 0.0


def _check(world: World) -> None:
    assert world.server.most_leases <= RULES.success_threshold
    # Two beats per second and some requests for each vote: no process polls in a tight loop.
    assert world.server.requests < 20 * len(world.processes) * (now() + 1)


def _view(world: World, process: Process) -> tuple[bool, object]:
    """What a process knows: whether the circuit is open, and the mode."""
    record = process.member.records().get(NAME, Record())
    return record.is_open, record.mode(world.server.now())
