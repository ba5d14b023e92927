"""Creating keys for callers on the command line."""

import re

import pytest

from example_service.api.request.callers import Caller, callers_by_key
from example_service.cli import main
from example_service.core.settings.model import APISettings


def made(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    """The key and the entry that the command prints."""
    assert main(["key", *arguments]) == 0
    key, entry = re.findall(r"^.*:  (\S+)$", capsys.readouterr().out, re.MULTILINE)
    return key, entry


@pytest.mark.parametrize(
    ("arguments", "caller"),
    [(["shop"], Caller("shop")), (["reports", "--read-only"], Caller("reports", may_write=False))],
)
async def test_a_key_is_accepted_with_its_entry(
    arguments: list[str], caller: Caller, capsys: pytest.CaptureFixture[str]
) -> None:
    """The printed lines can be used as they are, and no other key matches the entry."""
    key, entry = made(capsys, *arguments)
    find_caller = callers_by_key(APISettings(keys=[entry]).keys)

    assert await find_caller(key.encode()) == caller
    assert await find_caller(key.swapcase().encode()) is None
    assert key not in entry


def test_every_key_is_different(capsys: pytest.CaptureFixture[str]) -> None:
    """Two keys of one caller differ as well, and keys are too long to guess."""
    keys = {made(capsys, "shop")[0] for _ in range(3)}

    assert len(keys) == 3
    assert {len(key) for key in keys} == {43}


@pytest.mark.parametrize("name", ["", "Shop", "a shop", "shop:read", "-", "x" * 65])
def test_an_invalid_name_of_a_caller_is_refused(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message says which names are valid."""
    with pytest.raises(SystemExit, match="2"):
        main(["key", "--", name])

    assert "should be 1 to 64 lower-case letters" in capsys.readouterr().err
