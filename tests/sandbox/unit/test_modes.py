"""The modes of the sandbox: valid changes, and the faults that are drawn."""

from collections import Counter
from itertools import islice
from typing import Any

import pytest
from pydantic import ValidationError

from example_service.sandbox.modes import (
    IMPOSTOR_STATUSES,
    Act,
    Damage,
    Impostor,
    ModeChange,
    ModeReport,
    SandboxMode,
    Step,
    steps,
)


def draw(count: int, default_seed: int | None = None, **change: Any) -> list[Step]:
    """Return the first steps of a mode."""
    report = ModeReport.of(ModeChange(**change), default_seed)
    return list(islice(steps(report), count))


def faults_of(**change: Any) -> dict[str, str]:
    """Return the messages for an invalid change, by field."""
    with pytest.raises(ValidationError) as caught:
        ModeChange(**change)
    return {str(fault["loc"][0]): fault["msg"] for fault in caught.value.errors()}


@pytest.mark.parametrize(
    ("mode", "step"),
    [
        (SandboxMode.HEALTHY, Step(Act.ANSWER, records=True)),
        (SandboxMode.FAILING, Step(Act.FAIL, records=False)),
        (SandboxMode.SLOW, Step(Act.ANSWER_LATE, records=True, latency_seconds=1.0)),
        (SandboxMode.HANGING, Step(Act.HANG, records=True)),
        (SandboxMode.REFUSING, Step(Act.CUT, records=False)),
        (SandboxMode.LATE, Step(Act.DELAY, records=True, latency_seconds=1.0)),
    ],
)
def test_a_plain_mode_does_the_same_to_every_call(mode: SandboxMode, step: Step) -> None:
    """Only garbled, flaky and intercepted treat calls differently."""
    assert draw(20, mode=mode) == [step] * 20


def test_garbled_breaks_every_body_in_every_way_and_records_half() -> None:
    """Each kind of damage occurs both with and without a recorded charge."""
    drawn = draw(400, mode="garbled", seed=1)
    assert {step.act for step in drawn} == {Act.GARBLE}
    assert {(step.damage, step.records) for step in drawn} == {
        (damage, records) for damage in Damage for records in (True, False)
    }
    assert 160 < sum(step.records for step in drawn) < 240


def test_intercepted_meets_every_impostor_with_every_status_and_records_half() -> None:
    """Each impostor sends each status, with and without a recorded charge."""
    drawn = draw(4000, mode="intercepted", seed=1)
    assert {step.act for step in drawn} == {Act.INTERCEPT}
    assert {(step.impostor, step.status, step.records) for step in drawn} == {
        (impostor, status, records)
        for impostor in Impostor
        for status in IMPOSTOR_STATUSES
        for records in (True, False)
    }
    assert 1800 < sum(step.records for step in drawn) < 2200


def test_flaky_draws_all_faults_equally_at_the_given_rate() -> None:
    """At a rate of a quarter, each fault gets a fifth of the faulty calls."""
    acts = Counter(step.act for step in draw(4000, mode="flaky", failure_rate=0.25, seed=1))
    assert 2900 < acts.pop(Act.ANSWER) < 3100
    assert acts.keys() == set(Act) - {Act.ANSWER, Act.DELAY, Act.INTERCEPT}
    assert all(150 < count < 250 for count in acts.values())


@pytest.mark.parametrize(
    ("failure_rate", "answered"), [(0, {True}), (1, {False}), (None, {True, False})]
)
def test_flaky_accepts_the_ends_of_the_range(
    failure_rate: float | None, answered: set[bool]
) -> None:
    """Rate 0 is healthy, rate 1 always faulty, and the default lies between."""
    drawn = draw(100, mode="flaky", failure_rate=failure_rate, seed=1)
    assert {step.act is Act.ANSWER for step in drawn} == answered


@pytest.mark.parametrize("mode", ["garbled", "flaky", "intercepted"])
def test_the_same_seed_draws_the_same_faults(mode: str) -> None:
    """A seed repeats a run, whether it came with the mode or with the process."""
    drawn = draw(50, mode=mode, seed=7)
    assert drawn == draw(50, mode=mode, seed=7)
    assert drawn == draw(50, mode=mode, default_seed=7)
    assert drawn != draw(50, mode=mode, seed=8)


def test_without_a_seed_the_report_shows_the_one_that_was_drawn() -> None:
    """A run that began without a seed can be repeated."""
    report = ModeReport.of(ModeChange(mode=SandboxMode.FLAKY), None)
    again = ModeReport.of(ModeChange(mode=SandboxMode.FLAKY, seed=report.seed), None)
    assert list(islice(steps(report), 50)) == list(islice(steps(again), 50))


def test_the_seed_of_the_process_may_be_zero() -> None:
    """Zero is a seed, not the absence of one."""
    assert ModeReport.of(ModeChange(mode=SandboxMode.FLAKY), 0).seed == 0


def test_the_report_shows_only_what_the_mode_uses() -> None:
    """Parameters that the mode does not use are null."""
    assert ModeReport.of(ModeChange(mode=SandboxMode.FLAKY), 5).model_dump() == {
        "mode": "flaky",
        "latency_seconds": 1.0,
        "failure_rate": 0.5,
        "seed": 5,
    }
    assert ModeReport.of(ModeChange(mode=SandboxMode.SLOW, latency_seconds=3), 5).model_dump() == {
        "mode": "slow",
        "latency_seconds": 3.0,
        "failure_rate": None,
        "seed": None,
    }


def test_a_report_can_be_sent_back_as_a_change() -> None:
    """PUT accepts what GET returned."""
    report = ModeReport.of(ModeChange(mode=SandboxMode.GARBLED), 5)
    assert ModeReport.of(ModeChange(**report.model_dump()), None) == report


@pytest.mark.parametrize(("mode", "seconds"), [("slow", 60), ("flaky", 60), ("late", 604_800)])
def test_the_longest_latency_is_accepted(mode: str, seconds: float) -> None:
    """A late charge may arrive after every client timeout; a slow response is limited."""
    report = ModeReport.of(ModeChange.model_validate({"mode": mode, "latency_seconds": seconds}), 1)
    assert report.latency_seconds == seconds


def test_an_unknown_mode_is_refused_with_the_list_of_modes() -> None:
    """The message lists every mode, which saves a look into the docs."""
    message = faults_of(mode="on fire")["mode"]
    assert all(f"'{mode}'" in message for mode in SandboxMode)
    assert "on fire" not in message


@pytest.mark.parametrize(
    ("parameter", "mode", "value"),
    [
        ("latency_seconds", "slow", 0),
        ("latency_seconds", "slow", -1.0),
        ("latency_seconds", "slow", 61),
        ("latency_seconds", "slow", float("nan")),
        ("latency_seconds", "slow", float("inf")),
        ("latency_seconds", "slow", "1"),
        ("latency_seconds", "slow", True),
        ("latency_seconds", "healthy", 1.0),
        ("latency_seconds", "flaky", 61),
        ("latency_seconds", "late", 604_801),
        ("failure_rate", "flaky", -0.1),
        ("failure_rate", "flaky", 1.1),
        ("failure_rate", "flaky", float("nan")),
        ("failure_rate", "failing", 0.5),
        ("seed", "flaky", -1),
        ("seed", "flaky", 2**53),
        ("seed", "flaky", 1.5),
        ("seed", "flaky", True),
        ("seed", "slow", 1),
        ("sed", "flaky", 1),
    ],
)
def test_a_parameter_that_cannot_work_is_refused_by_name(
    parameter: str, mode: str, value: object
) -> None:
    """Bad values and parameters of another mode are never ignored silently."""
    assert list(faults_of(mode=mode, **{parameter: value})) == [parameter]
