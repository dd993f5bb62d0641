"""The dashboard and the alerts: every query asks for what a server exports, and every alert has a runbook."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import promql_parser
import pytest
import yaml

from tests.operations.exported import labels_by_sample

ROOT: Final = Path(__file__).parents[2]
ALERTS: Final = ROOT / "operations" / "prometheus" / "alerts.yaml"
ALERT_TESTS: Final = ROOT / "operations" / "prometheus" / "alerts_test.yaml"
DASHBOARD: Final = json.loads((ROOT / "operations" / "grafana" / "rheostat.json").read_text())
PAGE: Final = (ROOT / "docs" / "operations.md").read_text()
OF_PROMETHEUS: Final = {"job", "instance"}
"""Labels that Prometheus gives to what it reads."""
EXPORTED: Final = {**labels_by_sample(), "up": set[str]()}
PROMTOOL: Final = shutil.which("promtool")


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [each for each in DASHBOARD["panels"] if each["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    """Where each stands, and what it asks."""
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", as_sent(target["expr"])


def as_sent(query: str) -> str:
    """As Grafana sends it, its variables replaced."""
    return re.sub(r"\$\w+", ".*", query.replace("$__rate_interval", "5m"))


QUERIES: Final = dict(queries())


def selectors(query: str) -> list[promql_parser.VectorSelector]:
    found: list[promql_parser.VectorSelector] = []

    def visit(expr: promql_parser.Expr) -> bool:
        if isinstance(expr, promql_parser.VectorSelector):
            found.append(expr)
        return True

    promql_parser.walk(promql_parser.parse(query), visit)
    return found


def grouped(query: str) -> set[str]:
    """Labels that sums are kept by."""
    return {name.strip() for group in re.findall(r"\bby \((.*?)\)", query) for name in group.split(",")}


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_a_query_asks_for_metrics_and_labels_that_a_server_exports(query: str) -> None:
    found = selectors(query)
    assert found
    assert [each.name for each in found if each.name not in EXPORTED] == []
    for each in found:
        known = EXPORTED[each.name or ""] | OF_PROMETHEUS
        assert {matcher.name for matcher in each.matchers.matchers} <= known
    assert grouped(query) <= set.intersection(*(EXPORTED[each.name or ""] for each in found)) | OF_PROMETHEUS


def test_every_metric_is_on_the_dashboard() -> None:
    asked = {each.name for panel in panels() for t in panel["targets"] for each in selectors(as_sent(t["expr"]))}
    families = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in EXPORTED}
    assert families - {re.sub(r"_(total|bucket|sum|count)$", "", name or "") for name in asked} == set()


def test_panels_have_their_own_ids_and_places_and_say_what_they_show() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len({*ids}) == len(ids)
    places = [tuple(panel["gridPos"].values()) for panel in DASHBOARD["panels"]]
    assert len({*places}) == len(places)
    for panel in panels():
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["type"] == "heatmap" or panel["fieldConfig"]["defaults"]["unit"]


def test_the_dashboard_takes_its_data_from_a_source_that_is_chosen_in_it() -> None:
    variables = {each["name"]: each["type"] for each in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource": "datasource", "job": "query", "instance": "query"}
    sources = [part["datasource"]["uid"] for panel in panels() for part in (panel, *panel["targets"])]
    assert {*sources} == {"${datasource}"}
    for each in DASHBOARD["templating"]["list"][1:]:
        [metric] = re.findall(r"label_values\((\w+)", each["query"]["query"])
        assert metric in EXPORTED


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_long_how_bad_and_what_to_do(rule: Mapping[str, Any]) -> None:
    assert {*rule} == {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in {"page", "ticket", "info"}
    assert rule["annotations"]["summary"]
    page, anchor = rule["annotations"]["runbook"].split("#")
    assert (page, anchor) == ("docs/operations.md", rule["alert"].lower())
    assert anchor in anchors()


def test_every_runbook_is_of_an_alert() -> None:
    assert {rule["alert"].lower() for rule in rules()} == {each for each in anchors() if each.startswith("rheostat")}


def test_the_scrape_config_reads_the_job_that_the_alerts_are_for() -> None:
    [config] = [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)]
    [scrape] = config["scrape_configs"]
    assert f'job="{scrape["job_name"]}"' in (ROOT / config["rule_files"][0]).read_text()


def anchors() -> set[str]:
    """Those of the page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not on the PATH; Debian's package prometheus has it")
@pytest.mark.parametrize(
    "command", [("check", "rules", str(ALERTS)), ("test", "rules", str(ALERT_TESTS))], ids=" ".join
)
def test_promtool_finds_nothing_wrong(command: tuple[str, ...]) -> None:
    ended = subprocess.run([str(PROMTOOL), *command], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
