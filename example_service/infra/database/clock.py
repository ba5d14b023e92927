"""The current time of the database server, computed in the statement that uses it.

The clocks of several machines differ. Decisions that concern all of them, such as which worker may
take a payment, therefore use the clock of the database server. With SQLite, this is the clock of
the machine.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import Float, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from example_service.infra.database.base import UTCDateTime


class SecondsFromNow(FunctionElement[datetime]):
    """The time `seconds` after the start of the statement.

    Args:
        seconds: The offset in seconds, which may be negative. It is rounded to microseconds, or to
            milliseconds with SQLite.
    """

    type = UTCDateTime()
    inherit_cache = True

    def __init__(self, seconds: float) -> None:
        super().__init__(literal(seconds, Float))


@compiles(SecondsFromNow, "postgresql")
def _for_postgresql(moment: SecondsFromNow, compiler: SQLCompiler, **options: Any) -> str:
    seconds = compiler.process(moment.clauses, **options)
    # Unlike clock_timestamp(), this is constant within a statement, so an index can be used.
    return f"(statement_timestamp() + make_interval(secs => {seconds}))"


@compiles(SecondsFromNow, "sqlite")
def _for_sqlite(moment: SecondsFromNow, compiler: SQLCompiler, **options: Any) -> str:
    seconds = compiler.process(moment.clauses, **options)
    # Datetimes are stored with six decimal places and compared as text. SQLite does not accept an
    # exponent in the number of seconds.
    return f"(strftime('%Y-%m-%d %H:%M:%f000', 'now', printf('%.3f seconds', {seconds})))"
