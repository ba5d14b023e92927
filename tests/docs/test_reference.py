"""Tables, trees, diagrams and links of the pages agree with the code."""

import inspect
import re
import tomllib
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr

from example_service.api.problems import catalogue
from example_service.core.settings import Settings
from example_service.core.settings.model import AdminSettings
from example_service.core.settings.variables import variables
from example_service.infra import metrics
from example_service.infra.resilience import (
    Backoff,
    CircuitBreaker,
    CircuitState,
    FailureRate,
    StateChanged,
)
from example_service.infra.resilience.testing import FakeClock, RecordingListener
from example_service.main import create_app
from example_service.payments.metrics import payment_metrics
from tests.docs.hints import corrections
from tests.docs.pages import MARKDOWN_FILES, README, ROOT, Block, blocks, broken_links, table_rows

BREAKER = ROOT / "docs" / "circuit-breaker.md"
SERVICE = ROOT / "docs" / "service.md"
PAYMENTS = ROOT / "docs" / "payments.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
OWN_METRICS = ("circuit_breaker_", "http_request", "database_pool", "payments_", "service_")


# --- the breaker


def test_parameters_have_the_documented_defaults() -> None:
    """The table lists the parameters of the constructor in order, with their defaults."""
    signature = inspect.signature(CircuitBreaker)
    written = {
        inspect.Parameter.empty: "required",
        Exception: "Exception",
        signature.parameters["clock"].default: "time.monotonic",
        signature.parameters["registry"].default: "circuit_breaker_registry",
        Backoff(): "Backoff()",
    }
    expected = [
        [name, written.get(parameter.default, repr(parameter.default))]
        for name, parameter in signature.parameters.items()
    ]

    assert [row[:2] for row in table_rows(BREAKER, "parameters")] == expected


@pytest.mark.parametrize(
    ("value_class", "marker"), [(Backoff, "backoff"), (FailureRate, "failure rate")]
)
def test_value_objects_have_the_documented_defaults(value_class: type, marker: str) -> None:
    """The same applies to the objects that some parameters accept."""
    expected = [
        [name, repr(parameter.default)]
        for name, parameter in inspect.signature(value_class).parameters.items()
    ]

    assert [row[:2] for row in table_rows(BREAKER, marker)] == expected


async def test_metrics_have_the_documented_keys_and_types() -> None:
    """The table lists the keys of the dictionary in order, with the types of their values."""
    breaker = CircuitBreaker("documented", failure_threshold=1, registry=None)
    with pytest.raises(ZeroDivisionError):
        await breaker.call(lambda: 1 // 0)
    breaker.force_open("documented", seconds=60)
    shown = breaker.get_metrics()

    rows = table_rows(BREAKER, "metrics")

    assert [row[0] for row in rows] == list(shown)
    for key, types, _ in rows:
        assert type(shown[key]).__name__ == re.findall(r"\w+", types)[0]


def test_diagram_shows_the_transitions_that_happen() -> None:
    """A breaker that goes through all possible events makes exactly these transitions."""
    [diagram] = [block for block in blocks("diagram") if block.page == BREAKER]
    drawn = set(re.findall(r"^ *(\w+) --> (\w+):", diagram.text, re.MULTILINE))
    clock, listener = FakeClock(), RecordingListener()
    breaker = CircuitBreaker(
        "drawn", failure_threshold=1, success_threshold=1, listeners=[listener], clock=clock
    )

    for outcome in ("failure", "failure", "success"):
        clock.advance(breaker.get_metrics()["retry_after"])
        if outcome == "success":
            breaker.call_sync(lambda: None)
        else:
            with pytest.raises(ZeroDivisionError):
                breaker.call_sync(lambda: 1 // 0)

    gone = {
        (event.from_state.name, event.to_state.name)
        for event in listener.events
        if isinstance(event, StateChanged)
    }
    assert gone == drawn
    assert {name for change in drawn for name in change} == {state.name for state in CircuitState}


# --- the service


def documented_anywhere(marker: str) -> list[list[str]]:
    """The first two cells of each row of a table of the service and of those of its domains."""
    pages = [page for page in MARKDOWN_FILES if f"<!-- {marker} -->" in page.read_text("utf-8")]
    return sorted(row[:2] for page in pages for row in table_rows(page, marker))


def test_limits_of_the_proxy_match_those_of_the_service() -> None:
    """The proxy closes idle connections earlier, and refuses the same bodies as the service."""
    [proxy] = [block for block in blocks("proxy") if "upstream" in block.text]
    settings = Settings(environment="test")
    [idle_seconds] = re.findall(r"keepalive_timeout (\d+)s;", proxy.text)
    [body_kibibytes] = re.findall(r"client_max_body_size (\d+)k;", proxy.text)

    assert int(idle_seconds) < settings.http.keep_alive_seconds
    assert int(body_kibibytes) * 1024 == settings.limits.max_body_bytes


def test_settings_have_the_documented_defaults() -> None:
    """The tables list every variable exactly once, with its default."""
    expected = [
        [variable.name, variable.default_text] for variable in variables(Settings, ["<NAME>"])
    ]

    assert corrections(expected, documented_anywhere("settings"), "settings") == []


def test_problems_are_documented_with_their_status() -> None:
    """The tables list the complete catalogue."""
    create_app(Settings(environment="development"))
    expected = [
        [f"/problems/{problem_type.slug}", str(problem_type.status)]
        for problem_type in catalogue.defined_problem_types()
    ]

    assert corrections(expected, documented_anywhere("problems"), "problems") == []


class Membership:
    """A process that is a member of a fleet."""

    is_connected = True
    members = 2


def test_exported_metrics_are_documented_with_type_and_labels() -> None:
    """The tables list exactly the service's own metrics in `/metrics`."""
    metrics.request_metrics.started()
    metrics.request_metrics.finished("GET", "/documented", 200, 0.001)
    metrics.fleet_metrics.watch(Membership())
    listeners = [metrics.CallDurations()]
    breaker = CircuitBreaker("documented", listeners=listeners, failure_rate=FailureRate())
    breaker.call_sync(lambda: None)
    breaker.shadow("documented")
    metrics.show_readiness(is_ready=True)
    payment_metrics()
    expected = []
    for family in REGISTRY.collect():
        if family.name.startswith(OWN_METRICS):
            suffix = "_total" if family.type == "counter" else ""
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            expected.append((family.name + suffix, family.type, frozenset(labels)))

    metrics.fleet_metrics.watch(None)
    rows = table_rows(SERVICE, "metrics") + table_rows(PAYMENTS, "metrics")

    assert breaker.is_closed
    documented = [
        (name, kind, frozenset(re.findall(r"\w+", labels))) for name, kind, labels, _ in rows
    ]
    assert len(documented) == len(expected)
    assert set(documented) == set(expected)


def test_operations_are_documented() -> None:
    """The pages name every path of the API, including those that a setting enables."""
    admin = AdminSettings(token=SecretStr("documented-operations-7"))
    app = create_app(Settings(environment="development", admin=admin))
    pages = "".join(page.read_text(encoding="utf-8") for page in MARKDOWN_FILES)

    missing = [
        f"add to the table at the top of docs/service.md, or to the page of the domain: "
        f"| `{method.upper()} {path}` | what it answers |"
        for path, methods in app.openapi()["paths"].items()
        for method in methods
        if f"{path}`" not in pages
    ]
    assert missing == []


@pytest.mark.parametrize("tree", blocks("tree"), ids=str)
def test_tree_shows_existing_files(tree: Block) -> None:
    """Each line of a tree is a file, or a folder if it ends with a slash."""
    root, *lines = tree.text.splitlines()
    folders = [ROOT / root]
    for line in lines:
        branch, name = re.fullmatch(r"([│ ]*[├└]── )(\S+).*", line).groups()  # type: ignore[union-attr]
        depth = len(branch) // 4
        path = folders[depth - 1] / name
        assert path.is_dir() if name.endswith("/") else path.is_file(), line
        folders[depth:] = [path]


def test_readme_shows_every_package() -> None:
    """No package is missing from the tree in the README."""
    [tree] = [block for block in blocks("tree") if block.page == README]
    packages = [path.parent for path in (ROOT / "example_service").glob("*/__init__.py")]

    missing = [
        f"add to the tree of README.md: │   ├── {path.name}/  what it is"
        for path in packages
        if f"── {path.name}/" not in tree.text
    ]
    assert missing == []


def test_architecture_shows_every_module_of_the_breaker() -> None:
    """Its tree also shows every top-level module and package of the service."""
    [tree] = [block for block in blocks("tree") if block.page == ARCHITECTURE]
    package = ROOT / "example_service"
    modules = [*package.glob("*.py"), *(package / "infra" / "resilience").glob("*.py")]
    names = [path.name for path in modules if not path.name.startswith("__")]

    assert [name for name in names if f"── {name} " not in tree.text] == []


def test_readme_lists_every_page() -> None:
    """A reader of the README learns about all pages."""
    text = README.read_text(encoding="utf-8")
    _, _, documentation = text.partition("## Documentation\n")
    listed = documentation.partition("\n## ")[0]
    decisions = {*(ROOT / "docs" / "decisions").glob("[0-9]*.md")}
    pages = [
        path.relative_to(ROOT).as_posix()
        for path in MARKDOWN_FILES
        if path != README and path not in decisions
    ]

    missing = [
        f'add below "Documentation" in README.md: - [Title]({page}): what it says.'
        for page in pages
        if f"]({page})" not in listed
    ]
    assert missing == []


def test_every_decision_is_listed_with_its_number_and_title() -> None:
    """They are in order, with the titles of their pages; a deleted decision leaves a gap."""
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(
        r"^(\d+)\. \[(.+)\]\((.+)\)$", (folder / "README.md").read_text("utf-8"), re.MULTILINE
    )
    pages = []
    for path in sorted(folder.glob("[0-9]*.md")):
        number = int(path.name.partition("-")[0])
        title = path.read_text(encoding="utf-8").splitlines()[0].removeprefix(f"# {number}. ")
        assert path.name.startswith(f"{number:03d}-")
        pages.append((str(number), title, path.name))

    assert listed == pages
    assert len({number for number, _, _ in pages}) == len(pages)


def test_import_direction_matches_the_contract() -> None:
    """The layers in the text are in the order of the contract, which has more layers."""
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = configuration["tool"]["importlinter"]["contracts"][0]
    checked = re.findall(r"example_service\.(\w+)", " ".join(contract["layers"]))
    text = ARCHITECTURE.read_text(encoding="utf-8")
    [written] = re.findall(r"^`(\w+(?: > \w+)+)`$", text, re.MULTILINE)

    assert [layer for layer in checked if layer in written.split(" > ")] == written.split(" > ")


@pytest.mark.parametrize("page", MARKDOWN_FILES, ids=lambda page: page.name)
def test_links_between_pages_work(page: Path) -> None:
    """Each relative link leads to an existing file, and to a heading that it contains."""
    assert broken_links(page) == []
