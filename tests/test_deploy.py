"""deploy/ and docs/serving.md: other projects' validators, and that they agree with the code.

The validators are those of Debian's systemd and prometheus, where they are installed, and of
PyPI: kubernetes-validate has Kubernetes' own schemas, check-jsonschema that of Compose, and
hadolint reads Containerfiles. None of them needs a network.
"""

import dataclasses
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import trustme
import yaml
from serving import serve_sync, stub_model

from service import access_log, dataplane, gate, predictor, repository, settings, status
from service.calling.connection import Connection
from service.config import ServiceConfig
from service.settings import FILE_VARIABLE, PREFIX
from service.telemetry import METRICS

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
CONTAINERFILE = (DEPLOY / "Containerfile").read_text()
UNIT = (DEPLOY / "jaxnn.service").read_text()
PAGE = (ROOT / "docs" / "serving.md").read_text()
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
SPARE_S = 1.0  # at a stop, beside all waits: for the last answers to be written
UID = 10001


def tool(name: str) -> str:
    """A validator beside Python or on the path; skips the test where it is not installed."""
    found = shutil.which(
        name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    if not found:
        pytest.skip(f"{name} is not installed")
    return found


def checked(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=DEPLOY)
    assert done.returncode == 0, done.stdout + done.stderr


def read(name: str | Path) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def merged(base: Any, patch: Any) -> Any:
    """A strategic merge, as kubectl's: lists of things with names or paths by these."""
    if isinstance(base, dict) and isinstance(patch, dict):
        both = {**base, **{key: merged(base.get(key), value) for key, value in patch.items()}}
        return {key: value for key, value in both.items() if value is not None}
    if isinstance(base, list) and isinstance(patch, list):
        key = "mountPath" if "mountPath" in patch[0] else "name"
        old = {each[key]: each for each in base}
        new = {each[key]: merged(old.get(each[key]), each) for each in patch}
        return list({**old, **new}.values())
    return patch


PLAIN = read("kubernetes/deployment.yaml")
SECURED = merged(PLAIN, read("kubernetes/tls/patch.yaml"))
CONFIG_MAP = read("kubernetes/settings.yaml")
COMPOSE = read("compose.yaml")


def pod(deployment: Any) -> Any:
    return deployment["spec"]["template"]["spec"]


def container(deployment: Any) -> Any:
    (only,) = pod(deployment)["containers"]
    return only


def test_the_containerfile_passes_its_linter() -> None:
    checked(tool("hadolint"), "Containerfile")


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_fit_the_schemas_of_kubernetes(path: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is missing")
    validate.validate(read(path), "1.34", strict=True)  # raises


def test_the_deployment_with_tls_fits_them_too() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is missing")
    validate.validate(SECURED, "1.34", strict=True)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert "grpc" not in container(SECURED)[probe]


def test_the_compose_file_fits_its_schema() -> None:
    checked(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", "compose.yaml")


def test_the_unit_passes_systemd(tmp_path: Path) -> None:
    verify = tool("systemd-analyze")
    unit = tmp_path / "jaxnn.service"
    unit.write_text(UNIT.replace("/opt/jaxnn/bin/jaxnn", sys.executable))  # verify wants it there
    done = subprocess.run([verify, "verify", unit], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    # 1.4 of 10 today; what is open is the network, and what XLA's compiler needs.
    checked(verify, "security", "--offline=true", "--threshold=20", unit)


def test_prometheus_takes_its_settings_rules_and_the_queries_of_the_page(tmp_path: Path) -> None:
    promtool = tool("promtool")
    checked(promtool, "check", "config", "prometheus.yml")
    rules = tmp_path / "page.yml"
    queries = [{"record": f"q{n}", "expr": query} for n, query in enumerate(page_queries())]
    rules.write_text(yaml.safe_dump({"groups": [{"name": "page", "rules": queries}]}))
    checked(promtool, "check", "rules", rules)


def image_variables() -> dict[str, str]:
    """The environment that the image sets."""
    text = CONTAINERFILE.split("\nENV PATH=")[1].split("\nUSER")[0]
    return dict(re.findall(r"^ +(\w+)=(\S+)", text, re.MULTILINE))


def pod_variables(deployment: Any) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container(deployment)["env"]}


def unit_variables() -> dict[str, str]:
    lines = re.findall(r"^Environment=(.*)$", UNIT, re.MULTILINE)
    return dict(pair.split("=", 1) for line in lines for pair in line.split())


class Way(NamedTuple):
    """One way to run the server, as its files have it."""

    variables: dict[str, str]
    file: str  # of settings; empty for none
    stop_s: float  # that its supervisor allows for a stop
    before_s: float = 0.0  # of which are over before the server hears of it


def ways() -> dict[str, Way]:
    text = CONFIG_MAP["data"]["serve.toml"]
    image, server = image_variables(), COMPOSE["services"]["server"]
    before = container(PLAIN)["lifecycle"]["preStop"]["sleep"]["seconds"]
    stop = pod(PLAIN)["terminationGracePeriodSeconds"]
    (limit,) = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)
    return {
        "compose": Way(
            {**image, **server["environment"]}, "", float(server["stop_grace_period"].rstrip("s"))
        ),
        "kubernetes": Way({**image, **pod_variables(PLAIN)}, text, stop, before),
        "kubernetes with tls": Way({**image, **pod_variables(SECURED)}, text, stop, before),
        "systemd": Way(unit_variables(), (DEPLOY / "serve.toml").read_text(), float(limit)),
    }


WAYS = ways()


def config_of(way: Way, folder: Path) -> ServiceConfig:
    """The settings that a server would have: unknown or wrong ones raise."""
    variables = {name: v for name, v in way.variables.items() if name.startswith(PREFIX)}
    file = folder / "serve.toml"
    file.write_text(way.file)
    if way.file:
        variables[FILE_VARIABLE] = str(file)
    draft = settings.base(ServiceConfig, [], variables)
    return ServiceConfig(**vars(draft))  # checks what goes with what


@pytest.mark.parametrize("name", WAYS)
def test_settings_are_settings_and_each_counts(name: str, tmp_path: Path) -> None:
    way = WAYS[name]
    config_of(way, tmp_path)
    told = {PREFIX + key.upper() for key in tomllib.loads(way.file)}
    assert not told & way.variables.keys(), "a variable goes before the file, which is in vain"


@pytest.mark.parametrize("name", WAYS)
def test_supervisors_wait_for_longer_than_a_stop_takes(name: str, tmp_path: Path) -> None:
    way, config = WAYS[name], config_of(WAYS[name], tmp_path)
    own = config.shutdown_delay_s + gate.PATIENCE_S + config.shutdown_grace_s
    assert way.stop_s >= way.before_s + own + SPARE_S


@pytest.mark.parametrize("deployment", [PLAIN, SECURED], ids=["plain", "tls"])
def test_liveness_does_not_act_during_a_stop(deployment: Any) -> None:
    probe = container(deployment)["livenessProbe"]
    wait = probe["periodSeconds"] * probe["failureThreshold"]
    assert wait > pod(deployment)["terminationGracePeriodSeconds"]


def deployed() -> list[Path]:
    """The files of deploy/, without models and secrets that somebody may have put there."""
    folders = DEPLOY, DEPLOY / "kubernetes", DEPLOY / "kubernetes" / "tls"
    return [path for folder in folders for path in folder.iterdir() if path.is_file()]


def test_every_variable_and_flag_that_is_written_down_exists() -> None:
    names = {PREFIX + name.upper() for name in settings.hints(ServiceConfig)} | {FILE_VARIABLE}
    texts = [path.read_text() for path in deployed()]
    found = {name for text in [*texts, PAGE] for name in re.findall(rf"{PREFIX}[A-Z]\w*", text)}
    assert found and found <= names, found - names
    # After `jaxnn serve`, and in the page's prose alone between backquotes.
    commands = re.findall(r"jaxnn serve([^`\n]*)", "\n".join([*texts, PAGE]))
    alone = re.findall(r"`(--[a-z-]+)[^`]*`", PAGE)
    flags = {flag for text in commands for flag in re.findall(r"--[a-z-]+", text)} | set(alone)
    known = {f"--{name.replace('_', '-')}" for name in settings.hints(ServiceConfig)}
    known |= {f"--no-{flag[2:]}" for flag in known}
    callers = {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(Connection)}
    known |= callers | {"--server-model"}  # of `jaxnn classify`
    assert flags and flags <= known | {"--config", "--print-config", "--new-token"}


def test_ports_agree(tmp_path: Path) -> None:
    image = config_of(Way(image_variables(), "", 0), tmp_path)
    ports = [image.port, image.metrics_port]
    assert re.findall(r"^EXPOSE (.*)$", CONTAINERFILE, re.MULTILINE) == [" ".join(map(str, ports))]
    for name, way in WAYS.items():
        config = config_of(way, tmp_path)
        assert [config.port, config.metrics_port] == ports, name
    server = container(PLAIN)
    assert [each["containerPort"] for each in server["ports"]] == ports
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert server[probe]["grpc"]["port"] == ports[0]
    annotations = PLAIN["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(ports[1])
    service = read("kubernetes/service.yaml")["spec"]
    names = {each["name"]: each["containerPort"] for each in server["ports"]}
    assert [(each["port"], names[each["targetPort"]]) for each in service["ports"]] == [
        (port, port) for port in ports
    ]
    assert COMPOSE["services"]["server"]["ports"] == [f"{ports[0]}:{ports[0]}"]
    (scraped,) = read("prometheus.yml")["scrape_configs"]
    assert scraped["static_configs"][0]["targets"] == [f"server:{ports[1]}"]


def test_pods_are_ready_with_the_default_model(tmp_path: Path) -> None:
    config = config_of(WAYS["kubernetes"], tmp_path)
    assert container(PLAIN)["readinessProbe"]["grpc"]["service"] == config.name
    assert container(SECURED)["readinessProbe"]["exec"]["command"][-1] == config.name


def test_nobody_is_root_and_files_are_only_read() -> None:
    assert f"useradd --uid {UID} " in CONTAINERFILE and f"\nUSER {UID}:{UID}\n" in CONTAINERFILE
    ours = pod(PLAIN)["securityContext"]
    assert (ours["runAsNonRoot"], ours["runAsUser"], ours["fsGroup"]) == (True, UID, UID)
    assert container(PLAIN)["securityContext"]["readOnlyRootFilesystem"]
    server = COMPOSE["services"]["server"]
    cache = image_variables()["JAXNN_CACHE"]
    assert server["read_only"] and server["tmpfs"][0].startswith(f"{cache}:uid={UID},gid={UID},")
    mounts = {each["mountPath"]: each.get("readOnly", False) for each in mounted(SECURED)}
    assert [path for path, read_only in mounts.items() if not read_only] == [cache]


def mounted(deployment: Any) -> list[dict[str, Any]]:
    return list(container(deployment)["volumeMounts"])


@pytest.mark.parametrize("deployment", [PLAIN, SECURED], ids=["plain", "tls"])
def test_what_a_pod_is_given_is_where_its_settings_look(deployment: Any, tmp_path: Path) -> None:
    volumes = {each["name"]: each for each in pod(deployment)["volumes"]}
    assert {each["name"] for each in mounted(deployment)} == volumes.keys()
    paths = [Path(each["mountPath"]) for each in mounted(deployment)]
    variables = pod_variables(deployment)
    config = config_of(Way(variables, CONFIG_MAP["data"]["serve.toml"], 0), tmp_path)
    files = (config.tls_certificate, config.tls_key, config.tokens, Path(variables[FILE_VARIABLE]))
    for file in filter(None, files):
        assert file.parent in paths
    assert config.repository in paths
    names = {each["metadata"]["name"] for each in map(read, MANIFESTS)}
    assert volumes["settings"]["configMap"]["name"] == CONFIG_MAP["metadata"]["name"]
    assert Path(variables[FILE_VARIABLE]).name in CONFIG_MAP["data"]
    assert volumes["models"]["persistentVolumeClaim"]["claimName"] in names


def test_selectors_find_the_pods() -> None:
    labels = PLAIN["spec"]["template"]["metadata"]["labels"]
    service, budget = read("kubernetes/service.yaml"), read("kubernetes/disruption.yaml")
    assert PLAIN["spec"]["selector"]["matchLabels"] == labels == service["spec"]["selector"]
    assert budget["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["clusterIP"] == "None"


def test_files_that_are_named_are_there(tmp_path: Path) -> None:
    for line in re.findall(r"^COPY ([^-\n]*)$", CONTAINERFILE, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            kept = f"!{source}\n"
            assert kept in (DEPLOY / "Containerfile.dockerignore").read_text(), source
    copied = dict(re.findall(r"^COPY (deploy/\S+) (\S+)$", CONTAINERFILE, re.MULTILINE))
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container(SECURED)[probe]["exec"]["command"][1] in copied.values()
    server = COMPOSE["services"]["server"]
    assert (ROOT / server["build"]["dockerfile"]).exists()
    made = {"./models", "./secrets/tokens.toml", "./secrets/server.crt", "./secrets/server.key"}
    named = {each["file"] for each in COMPOSE["secrets"].values()}
    for service in COMPOSE["services"].values():
        named |= {v.split(":")[0] for v in service["volumes"] if v.startswith("./")}
    assert made < named
    for name in named - made:
        assert (DEPLOY / name).exists(), name
    for name in read("prometheus.yml")["rule_files"]:
        assert f"./{name}" in named
    for name in re.findall(r"deploy/[\w./-]*\w", UNIT + PAGE + CONTAINERFILE):
        assert (ROOT / name).exists(), name
    config = config_of(WAYS["compose"], tmp_path)
    secrets = {Path("/run/secrets", name) for name in server["secrets"]}
    assert {config.tokens, config.tls_certificate, config.tls_key} == secrets
    assert COMPOSE["secrets"].keys() == set(server["secrets"])
    credentials = dict(re.findall(r"^LoadCredential=(\S+):(\S+)$", UNIT, re.MULTILINE))
    config = config_of(WAYS["systemd"], tmp_path)
    assert {str(config.tokens), str(config.tls_certificate), str(config.tls_key)} == {
        f"%d/{name}" for name in credentials
    }


def page_queries() -> list[str]:
    """The PromQL of the page's table."""
    text = PAGE.split("| Question | PromQL |\n")[1].split("\n\n")[0]
    return re.findall(r"^\| [^`]* \| `(.*)` \|$", text, re.MULTILINE)


def test_metrics_that_are_asked_for_are_counted() -> None:
    names = set()
    labels = {"job", "instance", "le"}
    for metric in METRICS:
        ends = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}
        names |= {f"jaxnn_{metric.name}{end}" for end in ends[metric.kind]}
        labels |= set(metric.labels)
    rules = [rule["expr"] for group in read("rules.yml")["groups"] for rule in group["rules"]]
    queries = page_queries()
    assert len(queries) > 10 and len(rules) > 10
    for query in [*rules, *queries]:
        # Recorded ones begin with jaxnn: and up is Prometheus' own.
        asked = set(re.findall(r"\bjaxnn_\w+", query))
        assert asked <= names, asked - names
        by = {name for found in re.findall(r"by \(([^)]*)\)", query) for name in found.split(", ")}
        by |= set(re.findall(r"(\w+)=~?\"", query))
        assert by <= labels, by - labels


def test_figures_of_the_page_are_those_of_the_code() -> None:
    *small, largest = (f"{size:,}" for size in predictor.BUCKETS)
    least, most = dataplane.RETRY_AFTER
    page = " ".join(PAGE.split())
    for sentence in (
        f"programs for {', '.join(small)} and {largest} images",
        f"from {1000 * least:g} ms to {most:g} s",
        f"tried on {repository.PROOF_DIGITS} stored digits",
        f"until none has come for {1000 * gate.QUIET_S:g} ms",
        f"at most {access_log.FAILURES_PER_SECOND} a second",
        f"`max_connection_age_s`, {ServiceConfig().max_connection_age_s:g} s by default",
        f"ping every {ServiceConfig().min_ping_interval_s:g} seconds",
        f"`--metrics-port {image_variables()['JAXNN_SERVE_METRICS_PORT']}`",
    ):
        assert sentence in page, sentence


def test_the_error_table_is_the_code() -> None:
    text = PAGE.split("\n## Errors\n")[1].split("\n## ")[0]
    table = {
        name: code
        for code, names in re.findall(r"^\| ([A-Z_]+) \| ([^|]*) \|", text, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", names)
    }
    assert table == {kind.__name__: code for kind, code in status.STATUS.items()}
    assert "\n| INTERNAL | anything else |" in text and "\n| CANCELLED | |" in text
    assert status.RETRY_HINT in text


@pytest.fixture
def healthcheck(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("healthcheck", DEPLOY / "healthcheck.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "PATIENCE_S", 20.0)  # the machine may be busy
    yield module


@pytest.mark.parametrize("secured", ["", "tls", "mtls"])
def test_the_health_check(
    secured: str,
    healthcheck: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files: dict[str, Path] = {}
    if secured:
        authority = trustme.CA()
        issued = authority.issue_cert("digits.example")  # not what the check connects to
        files = {"tls_certificate": tmp_path / "crt", "tls_key": tmp_path / "key"}
        chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
        files["tls_certificate"].write_bytes(chain)
        files["tls_key"].write_bytes(issued.private_key_pem.bytes())
        if secured == "mtls":
            files["tls_client_ca"] = tmp_path / "ca"
            files["tls_client_ca"].write_bytes(authority.cert_pem.bytes())

    def scenario(target: str) -> None:
        monkeypatch.setenv("JAXNN_SERVE_PORT", target.split(":")[1])
        monkeypatch.setenv("JAXNN_SERVE_HOST", "0.0.0.0")
        for name, path in files.items():
            monkeypatch.setenv(PREFIX + name.upper(), str(path))
        assert (healthcheck.main(), healthcheck.main("stub")) == (0, 0)
        assert healthcheck.main("other") == 1
        assert "no answer: NOT_FOUND" in capsys.readouterr().out
        if secured:  # another's certificate is not taken for the server's
            other = trustme.CA().issue_cert("digits.example")
            files["tls_certificate"].write_bytes(other.cert_chain_pems[0].bytes())
            files["tls_key"].write_bytes(other.private_key_pem.bytes())
            assert healthcheck.main() == 1

    serve_sync(stub_model(), scenario, **files)
    assert healthcheck.main() == 1  # nobody there
    assert "no answer: " in capsys.readouterr().out


def test_a_server_without_a_model_is_not_well(
    healthcheck: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def scenario(target: str) -> None:
        monkeypatch.setenv("JAXNN_SERVE_PORT", target.split(":")[1])
        assert healthcheck.main() == 1
        assert capsys.readouterr().out == "NOT_SERVING\n"

    (tmp_path / "stub" / "1").mkdir(parents=True)
    for name in ("one", "other"):  # which of them is it to be?
        (tmp_path / "stub" / "1" / f"{name}.safetensors").touch()
    serve_sync(stub_model(), scenario, repository=tmp_path, watch_s=60.0)
