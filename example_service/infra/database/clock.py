"""The time of day as the database has it, computed within the statement that uses it.

Processes on several machines never agree on the time. What they decide together, such as whose turn
it is, is decided by the one clock that all of them share: that of the database's server. SQLite has
no server; there it is the clock of the one machine.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import Float, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from example_service.infra.database.base import UTCDateTime


class SecondsFromNow(FunctionElement[datetime]):
    """The moment so many seconds after the statement began; before it, if negative.

    Args:
        seconds: How many; fractions count, to the microsecond or, with SQLite, the millisecond.
    """

    type = UTCDateTime()
    inherit_cache = True

    def __init__(self, seconds: float) -> None:
        super().__init__(literal(seconds, Float))


@compiles(SecondsFromNow, "postgresql")
def _for_postgresql(moment: SecondsFromNow, compiler: SQLCompiler, **options: Any) -> str:
    seconds = compiler.process(moment.clauses, **options)
    # Unlike clock_timestamp(), it is the same throughout a statement, so that an index can be used.
    return f"(statement_timestamp() + make_interval(secs => {seconds}))"


@compiles(SecondsFromNow, "sqlite")
def _for_sqlite(moment: SecondsFromNow, compiler: SQLCompiler, **options: Any) -> str:
    seconds = compiler.process(moment.clauses, **options)
    # Moments are stored with six digits, and are compared as text. A number is only read without an
    # exponent.
    return f"(strftime('%Y-%m-%d %H:%M:%f000', 'now', printf('%.3f seconds', {seconds})))"
