"""The files of the monitoring agree with each other, with the runbook and with the page."""

import json
import re
import subprocess
from itertools import combinations
from typing import Any

import pytest

from tests.docs.pages import ROOT, anchors, table_rows
from tests.prometheus import MONITORING, RULES, read_yaml, sped_up
from tests.real_parts import program

ALERTS: list[dict[str, Any]] = [
    rule for group in read_yaml(RULES)["groups"] for rule in group["rules"]
]
CASES: list[dict[str, Any]] = [
    case
    for test in read_yaml(MONITORING / "rules_test.yml")["tests"]
    for case in test["alert_rule_test"]
]
DASHBOARD: dict[str, Any] = json.loads(
    (MONITORING / "grafana" / "dashboards" / "service.json").read_text()
)
RUNBOOK = ROOT / "docs" / "runbook.md"


def names_of(alerts: list[dict[str, Any]], key: str) -> list[str]:
    """The names of alerts, in their order."""
    return [alert[key] for alert in alerts]


@pytest.mark.parametrize(
    "arguments",
    ["check rules rules.yml", "test rules rules_test.yml", "check config prometheus.yml"],
)
def test_promtool_finds_no_fault(arguments: str) -> None:
    """The rules are valid, and each fires when it should and only then."""
    ended = subprocess.run(
        [program("promtool"), *arguments.split()],
        cwd=MONITORING,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_every_alert_has_cases_in_which_it_fires_and_does_not() -> None:
    """A rule without both may never fire, or always."""
    firing = {case["alertname"] for case in CASES if case.get("exp_alerts")}
    silent = {case["alertname"] for case in CASES if not case.get("exp_alerts")}

    assert firing == silent == set(names_of(ALERTS, "alert"))


@pytest.mark.parametrize("alert", ALERTS, ids=names_of(ALERTS, "alert"))
def test_an_alert_says_how_bad_it_is_and_what_to_do(alert: dict[str, Any]) -> None:
    """Its link leads to a heading of the runbook, which names it, and says what to look at."""
    page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    sections = re.split(r"^## ", RUNBOOK.read_text(), flags=re.MULTILINE)
    [section] = [section for section in sections if f"`{alert['alert']}`" in section]

    assert page.endswith("/docs/runbook.md")
    assert anchor in anchors(RUNBOOK)
    assert section.splitlines()[0].lower().replace(" ", "-") == anchor
    assert f"`{alert['alert']}`, {alert['labels']['severity']}:" in section
    assert "**Check:**" in section
    assert "**Do:**" in section
    assert alert["annotations"]["summary"]


def test_the_page_lists_the_alerts() -> None:
    """In the order of the rules, with their severity."""
    rows = table_rows(ROOT / "docs" / "monitoring.md", "alerts")

    assert [
        [f"[`{rule['alert']}`]({link})", rule["labels"]["severity"]]
        for rule in ALERTS
        for link in [rule["annotations"]["runbook_url"].split("/docs/")[1]]
    ] == [row[:2] for row in rows]


def test_alerts_go_to_a_receiver_that_exists() -> None:
    """Alertmanager refuses to start otherwise."""
    configuration = read_yaml(MONITORING / "alertmanager.yml")

    assert configuration["route"]["receiver"] in {
        receiver["name"] for receiver in configuration["receivers"]
    }


def test_the_dashboard_asks_the_data_source_that_is_provisioned() -> None:
    """Otherwise each panel shows an error."""
    provisioning = MONITORING / "grafana" / "provisioning"
    [source] = read_yaml(provisioning / "datasources" / "prometheus.yml")["datasources"]
    asked = re.findall(r'"datasource": (\{[^}]*\})', json.dumps(DASHBOARD))

    assert {json.loads(text)["uid"] for text in asked} == {source["uid"]}


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    """Grafana would move those that do."""
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]

    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for place, other in combinations(places, 2):
        assert (
            place["x"] + place["w"] <= other["x"]
            or other["x"] + other["w"] <= place["x"]
            or place["y"] + place["h"] <= other["y"]
            or other["y"] + other["h"] <= place["y"]
        )


def test_compose_mounts_files_that_exist() -> None:
    """A missing file would become an empty folder in the container."""
    services = read_yaml(ROOT / "docker-compose.yml")["services"]
    monitoring = {
        name for name, service in services.items() if service.get("profiles") == ["monitoring"]
    }
    mounted = [volume for name in monitoring for volume in services[name]["volumes"]]

    assert monitoring == {"prometheus", "alertmanager", "grafana"}
    assert all(
        (ROOT / volume.split(":")[0]).exists() for volume in mounted if volume.startswith("./")
    )
    [target] = read_yaml(MONITORING / "prometheus.yml")["scrape_configs"][0]["static_configs"]
    assert target["targets"] == ["service:8000"]
    assert "service" in services


def test_rules_can_be_sped_up_for_a_test() -> None:
    """What a test with a real Prometheus waits for are these rules, but for their durations."""
    rules = sped_up("for: 10m\nexpr: max_over_time(a[2m]) and b[30m] > 900\nfor: 2m")

    assert rules == "for: 2s\nexpr: max_over_time(a[4s]) and b[60s] > 900\nfor: 1s"
