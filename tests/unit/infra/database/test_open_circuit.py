"""What a transaction costs while the circuit of the database is open: next to nothing."""

from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import event

from example_service.core.settings import Settings
from example_service.infra.database.database import Database
from example_service.infra.database.engine import create_engine
from example_service.infra.resilience import CircuitBreaker, CircuitOpenError


async def test_an_open_circuit_refuses_before_there_is_a_session(tmp_path: Path) -> None:
    """The block is not entered, so nothing is prepared in vain, and it is one refusal."""
    url = SecretStr(f"sqlite:///{tmp_path}/database.sqlite3")
    engine = create_engine(Settings(environment="test", database_url=url))
    breaker = CircuitBreaker("database", registry=None)
    database = Database(engine, breaker)
    connects: list[object] = []
    event.listen(engine.sync_engine, "do_connect", lambda *_: connects.append(_))
    breaker.force_open("a test")
    entered = False
    with pytest.raises(CircuitOpenError):
        async with database.transaction():
            entered = True

    assert (entered, connects, breaker.total_rejections) == (False, [], 1)
