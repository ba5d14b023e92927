"""Reading the settings from the environment and `.env`."""

import errno
from pathlib import Path
from typing import Any

import pytest
from dotenv import dotenv_values
from pydantic import SecretStr, ValidationError

from example_service.core.exceptions import SettingProblem, SettingsError
from example_service.core.settings import Settings, load_settings
from example_service.core.settings.breakers import CircuitBreakerSettings
from example_service.core.settings.loading import read_settings, variable_sources
from example_service.core.settings.model import AdminSettings, ShutdownSettings
from example_service.core.settings.variables import mentions, variables

ENV_EXAMPLE = Path(__file__).parents[4] / ".env.example"


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path where `.env` is expected; the file does not exist yet."""
    path = tmp_path / ".env"
    monkeypatch.setattr(Settings, "env_path", path)
    return path


def set_variables(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    """Set environment variables until the end of the test."""
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def problems_of(**values: str) -> dict[str, str]:
    """The problems of settings that must be refused, by variable."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        set_variables(monkeypatch, **values)
        with pytest.raises(SettingsError) as refusal:
            load_settings()
    return {problem.variable: problem.problem for problem in refusal.value.problems}


def test_nothing_needs_to_be_set_for_development() -> None:
    """An empty environment gives settings that run on a developer's machine."""
    settings = load_settings()

    assert settings.environment == "development"
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 8000, 1)
    assert settings.admin.token is None


def test_variables_reach_the_fields_of_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group and its field are joined by two underscores, in any case."""
    set_variables(monkeypatch, LIMITS__MAX_BODY_BYTES="5", log__level="debug", PORT="9")

    settings = load_settings()

    assert settings.limits.max_body_bytes == 5
    assert settings.log.level == "DEBUG"
    assert settings.port == 9


def test_the_environment_wins_over_the_file(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable overrides the line in `.env`; settings in neither keep their defaults."""
    env_file.write_text("PORT=1\nLIMITS__MAX_BODY_BYTES=2\nSOMEBODY_ELSES=3\n")
    set_variables(monkeypatch, PORT="7")

    settings = load_settings()

    assert (settings.port, settings.limits.max_body_bytes, settings.workers) == (7, 2, 1)


def test_the_source_of_each_value_is_known(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that is not listed has its default; so has one whose variable is empty."""
    env_file.write_text("PORT=1\nLIMITS__MAX_BODY_BYTES=2\nHOST=\n")
    set_variables(monkeypatch, PORT="7", WORKERS="")

    sources = variable_sources()

    assert sources["PORT"] == "environment"
    assert sources["LIMITS__MAX_BODY_BYTES"] == ".env"
    assert "HOST" not in sources
    assert "WORKERS" not in sources


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files pass unset variables on as empty ones."""
    set_variables(monkeypatch, PORT="", ADMIN__TOKEN="", HTTP__ALLOWED_HOSTS="")

    assert load_settings() == Settings()


@pytest.mark.parametrize("text", ['["a.example", "*.b.example"]', "a.example, *.B.example"])
def test_lists_are_json_or_separated_by_commas(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of writing a list mean the same."""
    set_variables(monkeypatch, HTTP__ALLOWED_HOSTS=text)

    assert load_settings().http.allowed_hosts == ["a.example", "*.b.example"]


def test_a_variable_named_like_a_group_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ADMIN=yes` may belong to another program; it is no error and changes nothing."""
    set_variables(monkeypatch, ADMIN="yes", LOG="debug", LIMITS='{"max_body_bytes": 1}')

    assert load_settings() == Settings()


def test_a_breaker_gets_only_the_parameters_that_were_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The code decides the others, and `critical` is not passed to the breaker."""
    set_variables(
        monkeypatch,
        CIRCUIT_BREAKERS__SEARCH__FAILURE_THRESHOLD="3",
        CIRCUIT_BREAKERS__SEARCH__CRITICAL="true",
    )

    search = load_settings().circuit_breakers["search"]

    assert search.parameters() == {"failure_threshold": 3}
    assert search.critical


def test_production_drains_for_five_seconds_by_default() -> None:
    """Load balancers need this time; developers do not."""
    no_drain = ShutdownSettings(drain_seconds=0.0)

    assert Settings().shutdown.drain_seconds == 0.0
    assert Settings(environment="production").shutdown.drain_seconds == 5.0
    assert Settings(environment="production", shutdown=no_drain).shutdown.drain_seconds == 0.0


def test_settings_are_read_only() -> None:
    """Code that has read a setting can rely on it not changing."""
    settings = Settings()

    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]
    with pytest.raises(ValidationError):
        settings.limits.max_body_bytes = 1  # type: ignore[misc]


def test_every_invalid_variable_is_named_at_once() -> None:
    """All problems are reported together, including unknown variables."""
    problems = problems_of(
        PORT="eighty",
        ENVIRONMENT="staging",
        LIMITS__MAX_BODY="5",
        CIRCUIT_BREAKERS__DATABASE__RECOVERY_TIMEOUT="nan",
    )

    assert set(problems) == {
        "PORT",
        "ENVIRONMENT",
        "LIMITS__MAX_BODY",
        "CIRCUIT_BREAKERS__DATABASE__RECOVERY_TIMEOUT",
    }
    assert "whole number" in problems["PORT"]
    assert "'development', 'test' or 'production'" in problems["ENVIRONMENT"]
    assert "did you mean LIMITS__MAX_BODY_BYTES?" in problems["LIMITS__MAX_BODY"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "-1"),
        ("PORT", "65536"),
        ("WORKERS", "0"),
        ("LOG__LEVEL", "loud"),
        ("LOG__FORMAT", "xml"),
        ("LIMITS__MAX_BODY_BYTES", "0"),
        ("LIMITS__REQUEST_TIMEOUT_SECONDS", "0"),
        ("LIMITS__REQUEST_TIMEOUT_SECONDS", "inf"),
        ("LIMITS__MAX_CONCURRENT_REQUESTS", "0"),
        ("SHUTDOWN__DRAIN_SECONDS", "-1"),
        ("SHUTDOWN__GRACE_SECONDS", "nan"),
        ("HTTP__ALLOWED_HOSTS", "[]"),
        ("CIRCUIT_BREAKERS__DATABASE__FAILURE_THRESHOLD", "0"),
        ("CIRCUIT_BREAKERS__DATABASE__RECOVERY_TIMEOUT", "0"),
        ("CIRCUIT_BREAKERS__DATABASE__CRITICAL", "perhaps"),
    ],
)
def test_values_out_of_range_are_refused(name: str, value: str) -> None:
    """Each number has a range, and the error names the variable."""
    assert set(problems_of(**{name: value})) == {name}


@pytest.mark.parametrize("value", ["1_0", " 5", "5 ", "5\n", "+5", "٣", "1e3", "0x10", ".5", "5."])
def test_numbers_are_written_in_plain_digits(value: str) -> None:
    """Every number of every group refuses what only Python reads as a number."""
    numbers = [
        variable.name
        for variable in variables(Settings, ["payment"])
        if mentions(variable.field.annotation, int) or mentions(variable.field.annotation, float)
    ]

    problems = problems_of(**dict.fromkeys(numbers, value))

    assert set(problems) == set(numbers)
    assert all("in plain digits" in problem for problem in problems.values())


def test_rules_of_a_breaker_are_set_field_by_field(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code decides the fields that are not set; a misspelt field is reported."""
    set_variables(
        monkeypatch,
        CIRCUIT_BREAKERS__SHOP__FAILURE_RATE__THRESHOLD="0.2",
        CIRCUIT_BREAKERS__SHOP__BACKOFF__JITTER="0.5",
        CIRCUIT_BREAKERS__STOCK__FAILURE_THRESHOLD="3",
    )

    breakers = load_settings().circuit_breakers

    assert breakers["shop"].parameters() == {
        "failure_rate": {"threshold": 0.2},
        "backoff": {"jitter": 0.5},
    }
    assert breakers["stock"].parameters() == {"failure_threshold": 3}
    misspelt = problems_of(CIRCUIT_BREAKERS__SHOP__FAILURE_RATE__TRESHOLD="0.2")
    assert "CIRCUIT_BREAKERS__SHOP__FAILURE_RATE__THRESHOLD?" in str(misspelt)


@pytest.mark.parametrize(
    ("name", "value", "other"),
    [
        ("FAILURE_RATE__THRESHOLD", "1.5", {}),
        ("FAILURE_RATE__THRESHOLD", "0", {}),
        ("FAILURE_RATE__WINDOW_CALLS", "10", {"FAILURE_RATE__WINDOW_SECONDS": "5"}),
        ("FAILURE_RATE__MINIMUM_CALLS", "11", {"FAILURE_RATE__WINDOW_CALLS": "10"}),
        ("BACKOFF__MULTIPLIER", "0.5", {}),
        ("BACKOFF__JITTER", "2", {}),
        ("BACKOFF__SEED", "lucky", {}),
    ],
)
def test_invalid_rules_are_refused(name: str, value: str, other: dict[str, str]) -> None:
    """The error names the variable, also if it only contradicts another one."""
    prefix = "CIRCUIT_BREAKERS__SHOP__"
    given = {prefix + name: value} | {prefix + name: text for name, text in other.items()}

    assert set(problems_of(**given)) == {prefix + name}


def test_a_secret_is_never_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused token appears neither in the table nor in the underlying exception."""
    set_variables(monkeypatch, ADMIN__TOKEN="hunter2")

    with pytest.raises(SettingsError) as refusal:
        load_settings()
    with pytest.raises(ValidationError) as behind:
        Settings()

    assert "ADMIN__TOKEN" in str(refusal.value)
    assert "hunter2" not in str(refusal.value)
    assert "hunter2" not in str(behind.value)
    assert "hunter2" not in repr(refusal.value)


def test_a_secret_is_masked_where_settings_are_shown() -> None:
    """Printing or logging the settings does not reveal the token."""
    settings = Settings(admin=AdminSettings(token=SecretStr("0123456789abcdef")))

    assert "0123456789abcdef" not in repr(settings)
    assert "0123456789abcdef" not in settings.model_dump_json()


def test_production_refuses_the_defaults_of_development() -> None:
    """The callers and the hosts must be chosen for production."""
    problems = problems_of(ENVIRONMENT="production")

    assert {"API__KEYS", "HTTP__ALLOWED_HOSTS"} <= set(problems)


def test_reading_accepts_settings_that_production_would_refuse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`doctor` must be able to show them."""
    set_variables(monkeypatch, ENVIRONMENT="production")

    settings, problems = read_settings()

    assert settings is not None
    assert settings.environment == "production"
    assert problems == []


def test_a_file_that_is_not_text_is_reported(env_file: Path) -> None:
    """Whatever `.env` contains, the error is a table and not a traceback."""
    env_file.write_bytes(b"PORT=\xff")

    settings, problems = read_settings()

    assert settings is None
    assert problems == [SettingProblem(".env", "cannot be read: it is not UTF-8 text")]


def test_a_file_without_read_permission_is_reported(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The problem includes the reason that the system gives."""
    env_file.touch()

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)

    settings, problems = read_settings()

    assert settings is None
    assert problems == [SettingProblem(".env", "cannot be read: Permission denied")]


def documented_variables() -> dict[str, str]:
    """The commented-out variables of `.env.example`, with their values."""
    lines = ENV_EXAMPLE.read_text().splitlines()
    assignments = [line.removeprefix("# ") for line in lines if line.startswith("# ")]
    pairs = [line.partition("=") for line in assignments]
    return {name: value for name, equals, value in pairs if equals and name.isupper()}


def test_the_example_file_lists_every_setting_with_its_default() -> None:
    """`.env.example` and the settings classes have the same variables and defaults."""
    known = variables(Settings, ["database"])

    documented = documented_variables()
    missing = [
        f"add to .env.example:\n# {v.field.description}\n# {v.name}={v.default_text}"
        for v in known
        if documented.get(v.name) != v.default_text
    ]
    assert missing == []
    assert set(documented) == {v.name for v in known}


def test_the_example_file_changes_nothing_as_it_is(env_file: Path) -> None:
    """A copy sets nothing, and an uncommented copy sets the defaults."""
    assert dotenv_values(ENV_EXAMPLE) == {}

    pairs = documented_variables().items()
    env_file.write_text("".join(f"{name}={value}\n" for name, value in pairs))

    breakers = {"database": CircuitBreakerSettings()}
    assert load_settings() == Settings(_env_file=None, circuit_breakers=breakers)


def test_each_setting_says_what_it_means() -> None:
    """Every field has a description."""
    known = variables(Settings, ["database"])

    assert [v.name for v in known if not v.field.description] == []


def test_each_example_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every example that an error shows is itself accepted, unless it is a command."""
    for variable in variables(Settings, ["database"]):
        name, _, value = variable.example.partition("=")
        if not value.startswith("$("):
            set_variables(monkeypatch, **{name: value})

    load_settings()


def test_problems_carry_an_example() -> None:
    """The error shows a line that would be accepted."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        set_variables(monkeypatch, PORT="x")
        _, problems = read_settings()

    expected = SettingProblem(
        "PORT", "should be a whole number in plain digits, without spaces", "PORT=8000"
    )
    assert problems == [expected]


def test_a_group_refuses_a_field_that_it_does_not_have() -> None:
    """A misspelt keyword argument in code is an error, too."""
    fields: dict[str, Any] = {"drain": 1.0}

    with pytest.raises(ValidationError, match="drain"):
        ShutdownSettings(**fields)
