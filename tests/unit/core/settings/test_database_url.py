"""Database URLs as providers hand them out: they work, or the error says what to write."""

import pytest
from pydantic import TypeAdapter, ValidationError

from example_service.core.settings.database_url import (
    DatabaseURL,
    PostgreSQLAddress,
    SQLiteAddress,
    parse_database_url,
)


def postgresql(url: str) -> PostgreSQLAddress:
    """The parsed URL of a PostgreSQL database."""
    address = parse_database_url(url)
    assert isinstance(address, PostgreSQLAddress)
    return address


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///var/database.sqlite3", "sqlite+aiosqlite:///var/database.sqlite3"),
        ("sqlite+aiosqlite:////srv/it's mine.db", "sqlite+aiosqlite:////srv/it's mine.db"),
        ("postgresql://db/shop", "postgresql+asyncpg://db:5432/shop"),
        ("postgres://shop:p%40ss@db:5433/shop", "postgresql+asyncpg://shop:***@db:5433/shop"),
        ("postgresql+asyncpg://shop@[::1]/shop", "postgresql+asyncpg://shop@[::1]:5432/shop"),
        ("postgresql+psycopg2://u:p@h/d", "postgresql+asyncpg://u:***@h:5432/d"),
        ("POSTGRES://u:p@h/d", "postgresql+asyncpg://u:***@h:5432/d"),
        ("postgres://u:p@h/d\n", "postgresql+asyncpg://u:***@h:5432/d"),
        ("postgres://u:p@ss@h/d", "postgresql+asyncpg://u:***@h:5432/d"),
        ("postgresql://u@h1,h2:99,[::1]:7/d", "postgresql+asyncpg://u@h1:5432,h2:99,[::1]:7/d"),
        ("postgresql://u@/d?host=h1:1&host=h2:2", "postgresql+asyncpg://u@h1:1,h2:2/d"),
        ("postgresql://u@/d?host=h1,h2&port=1,2", "postgresql+asyncpg://u@h1:1,h2:2/d"),
        (
            "postgresql://u@/d?host=/cloudsql/p:r:i",
            "postgresql+asyncpg://u@/d?host=/cloudsql/p:r:i",
        ),
        ("postgresql://u@%2Frun%2Fpg/d", "postgresql+asyncpg://u@/d?host=/run/pg"),
        ("postgresql:///?host=h&dbname=d&user=u&password=p", "postgresql+asyncpg://u:***@h:5432/d"),
    ],
)
def test_every_form_is_read_and_shown_without_the_password(url: str, shown: str) -> None:
    """The forms of libpq, SQLAlchemy and Cloud SQL work, as does a trailing line break."""
    assert str(parse_database_url(url)) == shown


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ("", "prefer"),
        ("?sslmode=verify-full", "verify-full"),
        ("?ssl=true", "require"),
        ("?ssl=false", "disable"),
        ("?ssl=require", "require"),
        ("?sslmode=no-verify", "require"),
        ("?channel_binding=require", "require"),
        ("?sslmode=verify-full&channel_binding=require", "verify-full"),
        ("?channel_binding=prefer", "prefer"),
        ("?sslrootcert=system", "verify-full"),
        ("?sslrootcert=system&sslmode=verify-full", "verify-full"),
    ],
)
def test_every_way_to_ask_for_tls_is_understood(options: str, mode: str) -> None:
    """Neon, Heroku and the driver of Node.js each have their own words for it."""
    assert postgresql(f"postgres://u:p@h/d{options}").ssl_mode == mode


def test_every_option_arrives() -> None:
    """The options that a provider puts behind the question mark take effect."""
    address = postgresql(
        "postgres://u:p%25@h/d?sslmode=verify-ca&sslrootcert=/ca.pem&sslcert=/c.pem&sslkey=/k.pem"
        "&sslnegotiation=direct&target_session_attrs=read-write&pgbouncer=true"
        "&application_name=shop&options=-csearch_path%3Dshop&keepalives=1&gssencmode=disable"
        "&client_encoding=utf8&sslsni=1&krbsrvname=x&load_balance_hosts=random&supa=base-pooler.x"
    )

    assert address.password == "p%"
    assert address.ssl_files == {
        "sslrootcert": "/ca.pem",
        "sslcert": "/c.pem",
        "sslkey": "/k.pem",
    }
    assert (address.direct_tls, address.target, address.has_pooler) == (True, "read-write", True)
    assert address.parameters == {"application_name": "shop", "options": "-csearch_path=shop"}


def test_a_plus_is_a_plus_except_between_options() -> None:
    """This is how libpq reads it, and passwords from generators often have one."""
    url = "postgresql://a+b:c+d@/e+f?password=g+%2B%20h&host=/i+j&options=-ck%3D1+-cl%3D%2B2"

    address = parse_database_url(url)

    assert isinstance(address, PostgreSQLAddress)
    assert (address.user, address.password, address.database) == ("a+b", "g++ h", "e+f")
    assert address.hosts == (("/i+j", 5432),)
    assert address.parameters == {"options": "-ck=1 -cl=+2"}


@pytest.mark.parametrize(
    ("host", "has_pooler"),
    [
        ("ep-cool-1234-pooler.eu-central-1.aws.neon.tech", True),
        ("ep-cool-1234.eu-central-1.aws.neon.tech", False),
        ("aws-0-eu-central-1.pooler.supabase.com:6543", True),
        ("db.abc.supabase.co", False),
        ("db-pooler.example.com", False),
    ],
)
def test_poolers_of_providers_are_recognized(host: str, has_pooler: bool) -> None:
    """URLs of these providers work unchanged, and an option in the URL takes precedence."""
    assert postgresql(f"postgres://u:p@{host}/d").has_pooler is has_pooler
    assert postgresql(f"postgres://u:p@{host}/d?pgbouncer=false").has_pooler is False


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("", "begin with postgresql:// or sqlite:///"),
        ("hunter2", "begin with"),
        ("mysql://root:hunter2@db/shop", "begin with"),
        ("jdbc:postgresql://db/shop?password=hunter2", "begin with"),
        ("host=db password=hunter2", "begin with"),
        ('"postgres://u:hunter2@h/d"', "without quotation marks"),
        ("sqlite://", "the path of a file"),
        ("sqlite:///", "the path of a file"),
        ("sqlite:///a?mode=hunter2", "without options"),
        ("sqlite:///:memory:", "name a file"),
        ("sqlite:///file::memory:", "name a file"),
        ("sqlite:///file:hunter2.db", "the path of a file as it is"),
        ("sqlite:///~/hunter2.db", "the path of a file as it is"),
        ("sqlite:///$HOME/hunter2.db", "the path of a file as it is"),
        ("sqlite:///var/", "the path of a file as it is"),
        ("sqlite+pysqlite:///a", "begin with"),
        ("postgresql://shop:hunter2@db", "name a database"),
        ("postgresql://shop:hunter2@db/", "name a database"),
        ("postgresql://shop:hunter2@db/a/b", "write / as %2F"),
        ("postgresql:///shop", "name a host"),
        ("postgresql://shop:hunter2@h1,,h2/shop", "name a host"),
        ("postgresql://shop:hunter2@db:0/shop", "port from 1 to 65535"),
        ("postgresql://shop:hunter2@db:x/shop", "HOST:PORT"),
        ("postgresql://shop:hunter2@db:5_432/shop", "HOST:PORT"),
        ("postgresql://shop:hunter2@/shop?host=db:%D9%A3", "HOST:PORT"),
        ("postgresql://shop:hunter2@db/shop?port=%D9%A3", "port from 1 to 65535"),
        ("postgresql://shop:hunter2@db:70000/shop", "port from 1 to 65535"),
        ("postgresql://shop:hunter2@::1/shop", "in brackets"),
        ("postgresql://shop:hunter2 @db/shop", "write / as %2F"),
        ("postgresql://shop:hunter#2@db/shop", "# as %23"),
        ("postgresql://shop:hunter/2@db/shop", "write / as %2F"),
        ("postgresql://shop:p@db/shop?hunter2=1", "does not read"),
        ("postgresql://shop:p@db/shop?sslmode=hunter2", "not one of disable"),
        ("postgresql://shop:p@db/shop?ssl=hunter2", "one of sslmode"),
        ("postgresql://shop:p@db/shop?pgbouncer=hunter2", "neither true nor false"),
        ("postgresql://shop:p@db/shop?target_session_attrs=standby", "read-write"),
        ("postgresql://shop:p@db/shop?sslmode=require&sslmode=disable", "twice"),
        ("postgresql://shop:p@db/shop?sslnegotiation=direct", "needs sslmode=require"),
        ("postgresql://shop:p@db/shop?sslrootcert=system&ssl=true", "needs sslmode=verify-full"),
        ("postgresql://shop:hunter2%00@db/shop", "no control characters"),
        ("postgresql://shop%0A:hunter2@db/shop", "no control characters"),
        ("postgresql://shop:hunter2@db%00/shop", "no control characters"),
        ("postgresql://shop:hunter2@db/shop%7F", "no control characters"),
        ("postgresql://shop:hunter2@db/shop?application_name=a%00b", "no control characters"),
        ("postgresql://shop:hunter2%FF@db/shop", "only UTF-8"),
        ("postgresql://shop:p@db/shop?connect_timeout=9", "DATABASE__CONNECT_TIMEOUT_SECONDS"),
        ("postgresql://shop:p@db/shop?connection_limit=1", "DATABASE__POOL_SIZE"),
        ("postgresql://shop:p@db/shop?currentSchema=a", "options=-csearch_path%3DSCHEMA"),
        ("postgresql://shop:p@db/shop?prepareThreshold=0", "pgbouncer=true"),
        ("postgresql://shop:p@db/shop?hostaddr=10.0.0.1", "instead of the host"),
        ("postgresql://shop:p@db/shop?passfile=/x", "the password into the URL"),
        ("postgresql://shop:p@db/shop?timezone=UTC", "options=-ctimezone%3DUTC"),
        ("postgresql://shop:p@db/shop?sslaccept=strict", "sslmode=verify-full"),
        ("postgresql://shop:p@db/shop?socket_timeout=9", "DATABASE__STATEMENT_TIMEOUT_SECONDS"),
        ("postgresql://shop:p@${hunter}/shop", "a name of letters"),
        ("postgresql://shop:p@${{hunter.HOST}}:5432/shop", "a name of letters"),
        ("postgresql://shop:p@db/shop?sslpassword=x", "a key without a password"),
        ("postgresql://shop:p@db/shop?ssl_min_protocol_version=TLSv1.2", "ssl_min_protocol_ver"),
        ("postgresql://shop:p@db/shop?require_auth=scram-sha-256", "the option require_auth,"),
        ("postgresql://shop:p@db/shop?schema=s", "search_path"),
        ("postgresql://shop:p@/shop?unix_sock=/s/.s.PGSQL.5432", "write host= and the folder"),
        ("postgresql://u@h/d?sslrootcert=/no/hunter2", "sslrootcert with a file that cannot be"),
        ("postgresql://u@h1,h2/d?port=1,2,3", "as many as there are hosts"),
    ],
)
def test_an_unusable_url_is_refused_with_a_correction(url: str, advice: str) -> None:
    """The message does not repeat anything that may be secret."""
    with pytest.raises(ValidationError) as refusal:
        TypeAdapter(DatabaseURL).validate_python(url)

    message = refusal.value.errors(include_input=False)[0]["msg"]
    assert advice in message
    assert "hunter" not in message


def test_a_url_is_a_secret() -> None:
    """It is masked wherever it is printed, and whitespace around it is removed."""
    read = TypeAdapter(DatabaseURL).validate_python(" sqlite:///hunter2 \n")

    assert read.get_secret_value() == "sqlite:///hunter2"
    assert "hunter2" not in repr(read)
    assert "hunter2" not in repr(postgresql("postgres://u:hunter2@h/d"))
    assert parse_database_url("sqlite:///x") == SQLiteAddress("x")
