"""The Kubernetes manifests are valid, and agree with the image and the service."""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from ruamel.yaml import YAML

from example_service.core.settings import Settings, load_settings
from example_service.main import create_app

ROOT = Path(__file__).resolve().parent.parent
BASE = ROOT / "deploy" / "kubernetes"
KUBERNETES_VERSION = "1.37"
# Kubernetes has no schemas for kustomize's own file and for the kinds of an operator.
OF_OTHERS = {"kustomization.yaml", "service-monitor.yaml"}


def manifest(name: str) -> dict[str, Any]:
    """A file of the base, which contains one object."""
    loaded: dict[str, Any] = YAML(typ="safe").load(BASE / name)
    return loaded


DEPLOYMENT = manifest("deployment.yaml")
MIGRATION = manifest("migration.yaml")
PODS = {"service": DEPLOYMENT["spec"]["template"], "migration": MIGRATION["spec"]["template"]}


@pytest.mark.parametrize(
    "name", sorted(path.name for path in BASE.glob("*.yaml") if path.name not in OF_OTHERS)
)
def test_manifest_is_valid(name: str) -> None:
    """Each object has only fields that its kind defines."""
    kubernetes_validate.validate(manifest(name), KUBERNETES_VERSION, strict=True)


def test_a_misspelt_field_is_an_error() -> None:
    """The check refuses unknown fields, as a strict API server does."""
    misspelt = manifest("disruption-budget.yaml")
    misspelt["spec"]["maxUnavailible"] = 1

    with pytest.raises(kubernetes_validate.ValidationError, match="maxUnavailible"):
        kubernetes_validate.validate(misspelt, KUBERNETES_VERSION, strict=True)


def test_kustomization_lists_every_manifest() -> None:
    """No file is missing from the list, and every listed file exists."""
    listed = manifest("kustomization.yaml")["resources"]

    assert sorted([*listed, "kustomization.yaml"]) == sorted(path.name for path in BASE.iterdir())


def test_an_overlay_can_name_the_image() -> None:
    """The base leaves the name of the image to the overlay, which could not replace it twice."""
    [service] = PODS["service"]["spec"]["containers"]
    [migrate] = PODS["migration"]["spec"]["containers"]

    assert "images" not in manifest("kustomization.yaml")
    assert (service["image"], migrate["image"]) == ("example-service", "example-service")


def test_selectors_find_the_pods_of_the_service() -> None:
    """All selectors match the pods of the deployment, and none matches a migration."""
    labels = PODS["service"]["metadata"]["labels"]
    selectors = [
        DEPLOYMENT["spec"]["selector"]["matchLabels"],
        PODS["service"]["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
        manifest("service.yaml")["spec"]["selector"],
        manifest("disruption-budget.yaml")["spec"]["selector"]["matchLabels"],
        manifest("service-monitor.yaml")["spec"]["selector"]["matchLabels"],
    ]

    assert selectors == [labels] * len(selectors)
    assert PODS["migration"]["metadata"]["labels"] != labels
    policy = manifest("network-policy.yaml")["spec"]["podSelector"]["matchLabels"]
    for pod in PODS.values():
        assert policy.items() <= pod["metadata"]["labels"].items()


def test_monitor_finds_the_service() -> None:
    """The operator selects the Service by its labels; the scraped port and path exist."""
    kustomization, service = manifest("kustomization.yaml"), manifest("service.yaml")
    labels = service["metadata"]["labels"] | kustomization["labels"][0]["pairs"]
    monitor = manifest("service-monitor.yaml")["spec"]
    [endpoint] = monitor["endpoints"]

    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
    assert endpoint["path"] == "/metrics"


def test_autoscaler_scales_the_deployment() -> None:
    """It names the deployment, which sets no number of replicas that would conflict."""
    target = manifest("autoscaler.yaml")["spec"]["scaleTargetRef"]

    assert target == {
        "apiVersion": DEPLOYMENT["apiVersion"],
        "kind": DEPLOYMENT["kind"],
        "name": DEPLOYMENT["metadata"]["name"],
    }
    assert "replicas" not in DEPLOYMENT["spec"]


@pytest.mark.parametrize(
    ("probe", "path"),
    [
        ("startupProbe", "/health/startup"),
        ("livenessProbe", "/health/live"),
        ("readinessProbe", "/health/ready"),
    ],
)
def test_probes_use_paths_that_the_service_has(probe: str, path: str) -> None:
    """Each of the three has its own path, on the port of the image."""
    [container] = PODS["service"]["spec"]["containers"]
    [exposed] = re.findall(r"(?m)^EXPOSE (\d+)$", (ROOT / "Dockerfile").read_text())

    assert container[probe]["httpGet"] == {"path": path, "port": "http"}
    assert container["ports"] == [{"name": "http", "containerPort": int(exposed)}]
    assert path in create_app(Settings(environment="development")).openapi()["paths"]


@pytest.fixture
def settings_of_a_pod(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """The settings in a pod whose secret has a database URL and the key of a caller."""
    [generated] = manifest("kustomization.yaml")["configMapGenerator"]
    variables = dict(line.split("=", 1) for line in generated["literals"])
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    monkeypatch.delenv("DATABASE_URL")
    password = "k9Tf0zQ-w7LmX2vB"
    (tmp_path / "DATABASE_URL").write_text(f"postgresql://app:{password}@db.internal/payments\n")
    (tmp_path / "API__KEYS").write_text(f"shop:{'4b' * 32}\n")
    return load_settings()


def test_production_accepts_the_settings_of_a_pod(settings_of_a_pod: Settings) -> None:
    """The values of the base and a secret in a file are enough for production."""
    assert settings_of_a_pod.environment == "production"
    assert "db.internal" in settings_of_a_pod.database_url.get_secret_value()


def test_pods_have_enough_time_to_drain(settings_of_a_pod: Settings) -> None:
    """They are killed after the drain, the grace period and ten seconds of clean-up."""
    shutdown = settings_of_a_pod.shutdown

    given = PODS["service"]["spec"]["terminationGracePeriodSeconds"]

    assert given >= shutdown.drain_seconds + shutdown.grace_seconds + 10


@pytest.mark.parametrize("pod", PODS.values(), ids=list(PODS))
def test_pods_run_as_the_image_intends(pod: dict[str, Any]) -> None:
    """They have no privileges, use the image's user, and can write only to /tmp."""
    [container] = pod["spec"]["containers"]
    security = pod["spec"]["securityContext"]
    user = f"{security['runAsUser']}:{security['runAsGroup']}"
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}

    assert f"\nUSER {user}\n" in (ROOT / "Dockerfile").read_text()
    assert security["runAsNonRoot"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [path for path, mount in mounts.items() if not mount.get("readOnly")] == ["/tmp"]  # noqa: S108


@pytest.mark.parametrize("pod", PODS.values(), ids=list(PODS))
def test_secrets_are_referenced(pod: dict[str, Any]) -> None:
    """The secret is mounted where the service expects it, and no manifest contains its value."""
    [generated] = manifest("kustomization.yaml")["configMapGenerator"]
    variables = dict(line.split("=", 1) for line in generated["literals"])
    [container] = pod["spec"]["containers"]
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    [secret] = [volume for volume in pod["spec"]["volumes"] if "secret" in volume]

    assert container["envFrom"] == [{"configMapRef": {"name": generated["name"]}}]
    assert mounted[secret["name"]] == variables["SECRETS_DIR"]
    assert "env" not in container
    assert not re.search(r"(?i)password|token=|key=", "".join(generated["literals"]))
