"""What deploy/ holds is accepted by the tools it is for, and names nothing that is not there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.engine import URL

from config.settings import ROOT, Settings
from core.db import connect
from core.schema import metadata
from scheduler.health_check import create_health_app
from scheduler.overview import observer_engine
from tests import example_night as night
from tests.mariadb import missing

DEPLOY = ROOT / "deploy"
UNITS = ("navkeeper.service", "navkeeper-web.service")
EXPOSURE = 2.0  # of 10, by systemd-analyze; without the hardening it is over 9


def tool(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        missing(package, f"{name} is not installed: the Debian package {package} has it")
    return str(found)


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def exposition(tmp_path: Path) -> str:
    """What the application says of the example night."""
    engine = connect(URL.create("sqlite", database=str(tmp_path / "night.db")))
    metadata.create_all(engine)
    night.fill(engine)
    engine.dispose()
    app = create_health_app(observer_engine(engine.url), night.JOBS, lambda: night.NOW)
    return app.test_client().get("/metrics?format=prometheus").get_data(as_text=True)


@pytest.mark.parametrize("unit", UNITS)
def test_the_units_are_accepted_and_hardened(unit: str, tmp_path: Path) -> None:
    analyze = tool("systemd-analyze", "systemd")
    text = (DEPLOY / unit).read_text(encoding="utf-8")
    script = re.search(r"^ExecStart=/opt/navkeeper/.venv/bin/python (.*)$", text, re.MULTILINE)
    assert script is not None
    assert (ROOT / script[1]).is_file()
    copy = tmp_path / unit
    copy.write_text(text.replace("/opt/navkeeper/.venv/bin/python", sys.executable), encoding="utf-8")
    found = subprocess.run([analyze, "verify", str(copy)], capture_output=True, text=True, check=False)
    assert [line for line in found.stderr.splitlines() if unit in line] == []
    judged = run(analyze, "security", "--offline=true", copy)
    exposure = re.search(r"exposure level for \S+: ([0-9.]+)", judged)
    assert exposure is not None
    assert float(exposure[1]) <= EXPOSURE


def test_who_stops_the_daemon_waits_until_it_has_drained() -> None:
    drain = Settings.model_fields["drain_seconds"].default
    unit = re.search(r"^TimeoutStopSec=(\d+)$", (DEPLOY / UNITS[0]).read_text(encoding="utf-8"), re.MULTILINE)
    services = compose()["services"]
    assert unit is not None
    assert int(unit[1]) >= drain + 30
    assert int(services["daemon"]["stop_grace_period"].removesuffix("s")) >= drain + 30
    assert int(services["daemon"]["environment"]["NAVKEEPER_DRAIN_SECONDS"]) == drain


def compose() -> dict[str, Any]:
    found = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def test_the_compose_file_names_what_there_is() -> None:
    found = compose()
    services = found["services"]
    assert set(services) == {"daemon", "web", "mysql"}
    known = {name.upper() for name in Settings.model_fields}
    for name in ("daemon", "web"):
        build = services[name]["build"]
        context = (DEPLOY / build["context"]).resolve()
        assert context == ROOT
        assert (context / build["dockerfile"]).is_file()
        settings = {key.removeprefix("NAVKEEPER_") for key in services[name]["environment"]}
        assert settings <= known
        secrets = {key: value for key, value in services[name]["environment"].items() if "PASSWORD" in key}
        assert all(value.startswith("${") for value in secrets.values())
        for volume in services[name]["volumes"]:
            assert volume.partition(":")[0] in found["volumes"]
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]
    script = services["web"]["command"][1]
    assert (ROOT / script).is_file()
    assert services["mysql"]["environment"]["MYSQL_DATABASE"] == services["web"]["environment"]["MYSQL_DB"]


def test_the_dockerfile_copies_what_there_is_and_runs_as_nobody_special() -> None:
    lines = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [
        word
        for line in lines
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    ]
    assert copied
    assert [name for name in copied if not (ROOT / name).exists()] == []
    allowed = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert {f"!{name}" for name in copied} == {line for line in allowed if line.startswith("!")}
    assert any("--require-hashes" in line for line in lines)
    assert lines.index("USER navkeeper") > max(n for n, line in enumerate(lines) if line.startswith("FROM"))
    packages = set(
        re.findall(r"packages = \[(.*)\]", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))[0]
        .replace('"', "")
        .split(", ")
    )
    assert {name.partition(".")[0] for name in packages} <= set(copied)
    command = json.loads(next(line for line in lines if line.startswith("CMD ")).removeprefix("CMD "))
    assert (ROOT / command[1]).is_file()


def test_promtool_accepts_what_the_application_says(tmp_path: Path) -> None:
    checker = tool("promtool", "prometheus")
    text = exposition(tmp_path)
    done = subprocess.run(
        [checker, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_rules_pass_their_own_tests() -> None:
    checker, folder = tool("promtool", "prometheus"), DEPLOY / "prometheus"
    run(checker, "check", "config", "prometheus.yml", cwd=folder)
    run(checker, "test", "rules", "navkeeper.rules.test.yml", cwd=folder)


def test_rules_and_dashboard_ask_for_figures_that_there_are(tmp_path: Path) -> None:
    """Every name, and every label with its value, is one that the application gives."""
    families = list(text_string_to_metric_families(exposition(tmp_path)))
    names = {sample.name for family in families for sample in family.samples}
    labels = {label for family in families for sample in family.samples for label in sample.labels.items()}
    rules = (DEPLOY / "prometheus" / "navkeeper.rules.yml").read_text(encoding="utf-8")
    dashboard = (DEPLOY / "grafana" / "navkeeper.json").read_text(encoding="utf-8")
    assert names >= set(re.findall(r"navkeeper_\w+", rules)) > {"navkeeper_reasons"}
    assert names >= set(re.findall(r"navkeeper_\w+", dashboard)) > {"navkeeper_reasons"}
    codes = [code for found in re.findall(r'code=~"([^"]+)"', rules) for code in found.split("|")]
    assert {("code", code) for code in codes} <= labels
    steps = set(re.findall(r'step="(\w+)"', rules))
    assert steps <= set(night.JOBS)


def test_the_dashboard_is_one_that_grafana_reads() -> None:
    found = json.loads((DEPLOY / "grafana" / "navkeeper.json").read_text(encoding="utf-8"))
    assert (found["uid"], found["templating"]["list"][0]["type"]) == ("navkeeper", "datasource")
    panels = found["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert all(target["expr"] for target in panel["targets"])
        assert panel["datasource"]["uid"] == "${datasource}"
