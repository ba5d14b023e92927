"""The control address of the sandbox, over real sockets."""

import pytest

from example_service.sandbox.modes import (
    SandboxMode,
)
from tests.sandbox.integration.sandboxes import EURO, Sandbox

pytestmark = pytest.mark.integration


class TestControl:
    """The address that always responds."""

    @pytest.mark.parametrize("mode", SandboxMode)
    async def test_it_answers_in_every_mode(self, mode: SandboxMode, sandbox: Sandbox) -> None:
        """It shows the mode that was set."""
        await sandbox.turn(mode)
        shown = await sandbox.client.get(f"{sandbox.control}/sandbox/mode")
        assert shown.json()["mode"] == mode

    @pytest.mark.parametrize(
        ("body", "fields"),
        [
            (b'{"mode": "on fire"}', ["mode"]),
            (b"{}", ["mode"]),
            (b'{"mode": "slow", "latency_seconds": -1}', ["latency_seconds"]),
            (b'{"mode": "failing", "seed": 1}', ["seed"]),
            (b'{"mode": "failing", "colour": "red"}', ["colour"]),
            (b"[]", ["body"]),
            (b"{", ["body"]),
            (b"", ["body"]),
        ],
    )
    async def test_bad_input_is_refused_by_field_and_changes_nothing(
        self, body: bytes, fields: list[str], sandbox: Sandbox
    ) -> None:
        """The 422 names the field and repeats no value, and the mode stays."""
        answer = await sandbox.client.put(f"{sandbox.control}/sandbox/mode", content=body)
        assert answer.status_code == 422
        assert [each["field"] for each in answer.json()["errors"]] == fields
        assert "fire" not in answer.text
        assert (await sandbox.rate()).json() == EURO

    async def test_an_unknown_mode_is_answered_with_the_known_ones(self, sandbox: Sandbox) -> None:
        """The message lists every mode."""
        answer = await sandbox.client.put(f"{sandbox.control}/sandbox/mode", json={"mode": "sick"})
        assert all(f"'{mode}'" in answer.json()["errors"][0]["message"] for mode in SandboxMode)
