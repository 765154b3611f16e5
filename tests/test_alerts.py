"""Each alert fires when its fault is there, by Prometheus' own evaluator, and on no good day."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.observe import metrics
from tests.optional import tool

MONITORING = Path(__file__).parents[1] / "docker" / "monitoring"
ALERTS = MONITORING / "alerts.yaml"

CORE = {"job": "core", "instance": "10.0.0.5:9464"}
SLACK = {"job": "slack", "instance": "10.0.0.6:9464"}
SLACK_2 = {"job": "slack", "instance": "10.0.0.7:9464"}
DISCORD = {"job": "discord", "instance": "10.0.0.8:9464"}

Series = dict[str, str]
"""A series' name with its labels -> its values, one a minute, as promtool writes them."""

LANE = "rinna-ppo"


def series(name: str, process: dict[str, str], **labels: str) -> str:
    """A series of a process, as Prometheus writes it."""
    inside = ",".join(f'{label}="{value}"' for label, value in {**process, **labels}.items())
    return f"{name}{{{inside}}}"


GOOD_DAY: Series = {
    series("up", CORE): "1x180",
    series("up", SLACK): "1x180",
    series("up", SLACK_2): "1x180",
    series("process_start_time_seconds", CORE): "1000x180",
    series("process_start_time_seconds", SLACK): "1000x180",
    series("henji_cores", SLACK, lane=LANE): "1x180",
    series("henji_redis_up", CORE): "1x180",
    series("henji_redis_up", SLACK): "1x180",
    series("henji_redis_file_ok", CORE): "1x180",
    series("henji_redis_memory_bytes", CORE, kind="used"): "50x180",
    series("henji_redis_memory_bytes", CORE, kind="limit"): "100x180",
    series("henji_redis_evicted_keys", CORE): "0x180",
    series("henji_gateway_up", SLACK, platform="slack", shard="0"): "1x180",
    series("henji_jobs_waiting", SLACK, lane=LANE): "0 3 1 0 2 5 1 0 0 4 0x170",
    series("henji_dead_letters", SLACK): "2x180",
    series("henji_takeovers_total", CORE): "0x60 1x120",
    series("henji_jobs_total", CORE, lane=LANE, outcome="stop"): "0+30x180",
    series("henji_jobs_total", CORE, lane=LANE, outcome="failed"): "0x60 1x120",
    series("henji_job_wait_seconds_bucket", CORE, lane=LANE, le="1"): "0+29x180",
    series("henji_job_wait_seconds_bucket", CORE, lane=LANE, le="60"): "0+30x180",
    series("henji_job_wait_seconds_bucket", CORE, lane=LANE, le="300"): "0+30x180",
    series("henji_job_wait_seconds_bucket", CORE, lane=LANE, le="+Inf"): "0+30x180",
    series("henji_platform_calls_total", SLACK, platform="slack", outcome="ok"): "0+60x180",
    series("henji_platform_calls_total", SLACK, platform="slack", outcome="failed"): "0x60 1x120",
    series("henji_rate_limited_total", SLACK, platform="slack"): "0x60 1x120",
    series("henji_gpu_memory_bytes", CORE, kind="used"): "90x180",
    series("henji_gpu_memory_bytes", CORE, kind="total"): "100x180",
}  # fmt: skip
"""Three hours of a core and two processes for Slack, with a fault here and there."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault from the second hour on, and its alert."""

    alert: str
    changed: Series
    labels: dict[str, str]
    summary: str
    without: str = "^$"
    """The series that are not there at all."""
    also: tuple[str, ...] = ()
    """Further alerts that the same fault sets off."""


def _gone(pattern: str) -> Series:
    """The series that end after an hour, as those of a process that has died."""
    return {name: f"{_first_hour(values)} stale" for name, values in GOOD_DAY.items()
            if re.search(pattern, name)}  # fmt: skip


def _first_hour(values: str) -> str:
    """`1x180` -> `1x60`."""
    start, _, _ = values.split()[0].partition("x")
    return f"{start}x60"


FAULTS = [
    Fault("HenjiProcessDown", {series("up", CORE): "1x60 0x120"}, CORE,
          "core at 10.0.0.5:9464 does not answer"),
    Fault("HenjiNoCoreProcess", _gone('job="core"'), {"job": "core"},
          "No core runs: people are told so and get no answer"),
    Fault("HenjiNoBotProcess", _gone('job="slack"'), {},
          "No bot runs: people are not heard", also=("HenjiBotGone",)),
    Fault("HenjiNoBotProcess", {}, {}, "No bot runs: people are not heard", without='job="slack"'),
    Fault("HenjiNoCoreProcess", {}, {"job": "core"},
          "No core runs: people are told so and get no answer", without='job="core"'),
    Fault("HenjiBotGone", {series("up", DISCORD): "1x60 stale"},
          {"job": "discord"}, "discord ran within the last day, and no process of it is left"),
    Fault("HenjiFewerProcesses", {series("up", SLACK_2): "1x110 stale"}, {"job": "slack"},
          "1 processes of slack are left: some have ended"),
    Fault("HenjiRestarts", {series("process_start_time_seconds", CORE): "1000x90 0+300x90"},
          {"job": "core"}, "core ends and starts again and again: look into its log"),
    Fault("HenjiNoCore", {series("henji_cores", SLACK, lane=LANE): "1x60 0x120"},
          {"lane": "rinna-ppo"},
          "No core serves rinna-ppo: people are told so and get no answer"),
    Fault("HenjiRedisAway", {series("henji_redis_up", SLACK): "1x60 0x120"}, {},
          "A process cannot reach Redis: messages are refused with a sentence"),
    Fault("HenjiRedisCannotSave", {series("henji_redis_file_ok", CORE): "1x60 0x120"}, {},
          "Redis cannot write its files: look for a full disk"),
    Fault("HenjiRedisMemory",
          {series("henji_redis_memory_bytes", CORE, kind="used"): "50x60 95x120"}, {},
          "Redis's memory is nearly full: soon no message is taken"),
    Fault("HenjiRedisEvicts", {series("henji_redis_evicted_keys", CORE): "0x110 7x70"}, {},
          "Redis throws conversations away: set maxmemory-policy noeviction"),
    Fault("HenjiPeopleWait",
          {series("henji_job_wait_seconds_bucket", CORE, lane=LANE, le="60"): "0+20x180",
           series("henji_job_wait_seconds_bucket", CORE, lane=LANE, le="1"): "0+10x180"},
          {"lane": "rinna-ppo"},
          "One in twenty waits for over a minute in rinna-ppo: add a core"),
    Fault("HenjiQueueGrows", {series("henji_jobs_waiting", SLACK, lane=LANE): "0x60 100+10x120"},
          {"lane": "rinna-ppo"}, "690 threads wait in rinna-ppo, and more all the time"),
    Fault("HenjiDeadLetters", {series("henji_dead_letters", SLACK): "2x110 3x70"}, {},
          "Replies were given up: `henji admin dead` says which and why"),
    Fault("HenjiTakeovers", {series("henji_takeovers_total", CORE): "0x100 0+1x80"}, {},
          "Cores lose their jobs again and again: they are killed, or hang"),
    Fault("HenjiFailures",
          {series("henji_jobs_total", CORE, lane=LANE, outcome="failed"): "0x60 0+3x120"},
          {"lane": "rinna-ppo"},
          "One attempt in twenty fails in rinna-ppo: look into the core's log"),
    Fault("HenjiPlatformRefuses",
          {series("henji_platform_calls_total", SLACK, platform="slack", outcome="failed"):
           "0x60 0+10x120"},
          {"platform": "slack"}, "slack does not take what it is sent"),
    Fault("HenjiRateLimited",
          {series("henji_rate_limited_total", SLACK, platform="slack"): "0x60 0+6x120"},
          {"platform": "slack"},
          "slack answers 429 again and again: another process uses the same token"),
    Fault("HenjiDisconnected",
          {series("henji_gateway_up", SLACK, platform="slack", shard="0"): "1x60 0x120"},
          {"platform": "slack"}, "No connection to slack is up"),
    Fault("HenjiGpuMemory", {series("henji_gpu_memory_bytes", CORE, kind="used"): "99x180"}, CORE,
          "The GPU of 10.0.0.5:9464 is nearly full: set HENJI_CACHE_GB lower"),
]  # fmt: skip


def rules() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def test_every_alert_has_a_fault_that_sets_it_off() -> None:
    assert {fault.alert for fault in FAULTS} == rules().keys()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.alert)
def test_a_fault_sets_off_its_alert_with_its_sentence_and_no_other(
    fault: Fault, tmp_path: Path
) -> None:
    good = {name: v for name, v in GOOD_DAY.items() if not re.search(fault.without, name)}
    severity = rules()[fault.alert]["labels"]["severity"]
    expected = {
        "exp_labels": fault.labels | {"severity": severity},
        "exp_annotations": {"summary": fault.summary},
    }
    others = rules().keys() - {fault.alert, *fault.also}
    checks = [{"eval_time": "2h", "alertname": fault.alert, "exp_alerts": [expected]}]
    checks += [{"eval_time": "2h", "alertname": name, "exp_alerts": []} for name in others]
    _evaluate(good | fault.changed, checks, tmp_path)


def test_no_alert_fires_on_a_good_day(tmp_path: Path) -> None:
    checks = [{"eval_time": f"{minute}m", "alertname": name, "exp_alerts": []}
              for name in rules() for minute in range(5, 180, 7)]  # fmt: skip
    _evaluate(GOOD_DAY, checks, tmp_path)


def test_a_team_without_discord_is_not_told_that_discord_is_gone(tmp_path: Path) -> None:
    checks = [{"eval_time": "2h", "alertname": "HenjiBotGone", "exp_alerts": []}]
    _evaluate(GOOD_DAY, checks, tmp_path)


def _evaluate(there: Series, checks: list[dict[str, Any]], folder: Path) -> None:
    """AssertionError, with promtool's words, where an alert fires that should not, or does not."""
    given = [{"series": name, "values": values} for name, values in there.items()]
    case = {"interval": "1m", "input_series": given, "alert_rule_test": checks}
    file = folder / "case.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "tests": [case]}))
    ran = subprocess.run(
        [tool("promtool"), "test", "rules", str(file)], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_good_day_has_only_metrics_and_labels_that_there_are() -> None:
    labels = {
        name + suffix: set(metric._labelnames)
        for metric in vars(metrics).values()
        if hasattr(metric, "_labelnames")
        for name in [metric._name]
        for suffix in ("", "_total", "_bucket")
    }
    for full in GOOD_DAY:
        name, _, inside = full.partition("{")
        if name.startswith("henji_"):
            assert name in metrics.names(), name
            assert set(re.findall(r"(\w+)=", inside)) <= labels[name] | {"job", "instance", "le"}


# -- where alerts go ----------------------------------------------------------------------------


def test_prometheus_and_alertmanager_take_their_files(tmp_path: Path) -> None:
    for words in (
        ["promtool", "check", "rules", str(ALERTS)],
        ["promtool", "check", "config", "--syntax-only", str(MONITORING / "prometheus.yaml")],
        ["amtool", "check-config", str(MONITORING / "alertmanager.yaml")],
    ):
        ran = subprocess.run([tool(words[0]), *words[1:]], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_alert_reaches_a_receiver() -> None:
    routes = yaml.safe_load((MONITORING / "alertmanager.yaml").read_text())
    for rule in rules().values():
        words = [
            f"{name}={value}"
            for name, value in {**rule["labels"], "alertname": rule["alert"]}.items()
        ]
        ran = subprocess.run(
            [tool("amtool"), "config", "routes", "test", *words,
             f"--config.file={MONITORING / 'alertmanager.yaml'}"],
            capture_output=True, text=True,
        )  # fmt: skip
        assert ran.stdout.strip() == "people", ran.stdout + ran.stderr
    assert [receiver["name"] for receiver in routes["receivers"]] == ["people"]


def test_prometheus_watches_the_jobs_that_the_alerts_name_and_tells_alertmanager() -> None:
    config = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())
    jobs = {scrape["job_name"] for scrape in config["scrape_configs"]}
    named = set(re.findall(r'job=~?"([\w|]+)"', ALERTS.read_text()))
    assert jobs == {job for names in named for job in names.split("|")}
    (manager,) = config["alerting"]["alertmanagers"]
    assert manager["static_configs"] == [{"targets": ["alertmanager:9093"]}]
