"""Every program under examples/, run as a reader would run it."""

import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import requests
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from dis_logging import HandlerStats, Latency
from dis_logging.emulator import DISEmulator
from dis_logging.emulator.faults import Refuse

EXAMPLES = Path(__file__).parents[1] / "examples"
PROGRAMS = ["put_records.py", "script.py", "dictconfig.py", "openmetrics.py", "django_project/run.py"]
# What an account, a proxy or another Django project may have left in the environment.
HIDDEN = re.compile(r"DIS_LOGGING_.*|HUAWEICLOUD_.*|DJANGO_.*|.*_proxy", re.IGNORECASE)


def clean_environment() -> dict[str, str]:
    """Returns the environment of somebody who has configured nothing."""
    kept = {name: value for name, value in os.environ.items() if not HIDDEN.fullmatch(name)}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}


def run(program: str, where: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs an example in the directory *where*, in a clean environment with *variables*."""
    return subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / program, *arguments],
        cwd=where,
        env={**clean_environment(), **variables},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def account_at(dis: DISEmulator) -> dict[str, str]:
    """Returns the environment variables of somebody who has an account at *dis*."""
    return {
        "DIS_LOGGING_ENDPOINT": dis.endpoint,
        "HUAWEICLOUD_SDK_REGION": dis.region,
        "HUAWEICLOUD_SDK_PROJECT_ID": dis.project_id,
        "HUAWEICLOUD_SDK_AK": dis.ak,
        "HUAWEICLOUD_SDK_SK": dis.sk,
    }


def metrics_of(text: str) -> list[Metric]:
    """Returns what a reader of OpenMetrics makes of *text*; it raises for what is none."""
    return list(text_string_to_metric_families(text))  # type: ignore[no-untyped-call] # as the library has it


def test_every_example_is_run_here() -> None:
    programs = {
        str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*.py") if "__main__" in path.read_text("utf-8")
    }

    assert programs == {*PROGRAMS, "django_project/manage.py", "with_local_dis.py", "celery_app/send.py"}


@pytest.mark.parametrize("program", PROGRAMS)
def test_example_succeeds_without_an_account(program: str, tmp_path: Path) -> None:
    result = run(program, tmp_path)

    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("program", PROGRAMS)
def test_example_uses_the_account_that_is_configured(program: str, tmp_path: Path) -> None:
    with DISEmulator(streams={"dis-demo": 3, "app-logs": 3, "web-logs": 3}) as dis:
        result = run(program, tmp_path, **account_at(dis))
        stored = sum(dis.record_count(name) for name in ("dis-demo", "app-logs", "web-logs"))

    assert (result.returncode, result.stderr) == (0, "")
    expected = {
        "put_records.py": 3,
        "script.py": 4,
        "dictconfig.py": 2,
        "openmetrics.py": 3,
        "django_project/run.py": 3,
    }
    assert stored == expected[program]


def test_put_records_prints_what_the_official_page_prints(tmp_path: Path) -> None:
    assert run("put_records.py", tmp_path).stdout == (
        "PutRecordsResultEntry [shardId=shardId-0000000000, sequenceNumber=0, errorCode=, errorMessage=]\n"
        "PutRecordsResultEntry [shardId=shardId-0000000000, sequenceNumber=1, errorCode=, errorMessage=]\n"
        "PutRecordsResultEntry [shardId=shardId-0000000000, sequenceNumber=2, errorCode=, errorMessage=]\n"
        "failed record count: 0\n"
    )


def test_put_records_uploads_the_data_of_the_official_page(tmp_path: Path) -> None:
    with DISEmulator(streams={"another": 3}) as dis:
        run("put_records.py", tmp_path, DIS_LOGGING_STREAM_NAME="another", **account_at(dis))
        (request,) = dis.requests

    assert [entry.text for entry in request.entries] == [f"shardId-0000000000{number}" for number in range(3)]
    assert {(entry.partition_key, entry.explicit_hash_key) for entry in request.entries} == {("1", "123")}


def test_script_tells_what_was_delivered(tmp_path: Path) -> None:
    counts, *records = run("script.py", tmp_path).stdout.splitlines()

    assert "emitted=4, delivered=4, failed=0, dropped=0, buffered=0" in counts
    assert [int(record.split()[1].rstrip(":")) for record in records] == [0, 1, 2, 3]
    assert records[1].endswith("李雷 owes 100 on average")


def test_script_fails_when_records_were_not_delivered(tmp_path: Path) -> None:
    with DISEmulator(streams={"app-logs": 3}) as dis:
        dis.set_rule(Refuse(400, "DIS.4301"))
        result = run("script.py", tmp_path, **account_at(dis))

    assert result.returncode == 1
    assert result.stderr.count("dis_logging: not delivered: DIS.4301") == 4


def test_dictconfig_sends_what_fits_and_files_what_does_not(tmp_path: Path) -> None:
    first, second, filed = run("dictconfig.py", tmp_path).stdout.splitlines()

    assert first.endswith("INFO shop.orders order 1001 accepted")
    assert second.endswith("WARNING shop.stock 绿茶 is running low")
    assert "too_large" in filed
    assert (tmp_path / "undelivered.log").read_text("utf-8").count("\n") == 1


def test_openmetrics_shows_every_counter(tmp_path: Path) -> None:
    families = {each.name: each for each in metrics_of(run("openmetrics.py", tmp_path).stdout)}

    assert list(families) == [f"dis_logging_{field.name}" for field in fields(HandlerStats)]
    gauges = {name.removeprefix("dis_logging_") for name, family in families.items() if family.type == "gauge"}
    assert gauges == {"buffered", "buffered_bytes", "oldest_buffered", "latency"}
    assert {sample.labels["latency"] for sample in families["dis_logging_latency"].samples} == set(Latency._fields)
    assert {family.type for family in families.values()} == {"gauge", "counter"}
    assert all(family.documentation.endswith(".") for family in families.values())  # the whole of it
    (emitted,) = families["dis_logging_emitted"].samples
    assert (emitted.name, emitted.labels, emitted.value) == ("dis_logging_emitted_total", {"stream": "app-logs"}, 3)


def test_openmetrics_shows_numbers_by_word_and_odd_text(capfd: pytest.CaptureFixture[str]) -> None:
    """What HandlerStats does not have as yet."""
    program = r"""
import openmetrics
print(*openmetrics.metric("reasons", {'a "b"\\\n': {"network": 2, "DIS.4303": 1}}), sep="\n")
print(*openmetrics.metric("latency", {"a": 0.25}), "# EOF", sep="\n")
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], cwd=EXAMPLES, check=True, timeout=60)

    reasons, latency = metrics_of(capfd.readouterr().out)
    assert [(sample.name, sample.labels, sample.value) for sample in reasons.samples] == [
        ("dis_logging_reasons_total", {"stream": 'a "b"\\\n', "reason": "network"}, 2),
        ("dis_logging_reasons_total", {"stream": 'a "b"\\\n', "reason": "DIS.4303"}, 1),
    ]
    assert (latency.type, latency.samples[0].value) == ("gauge", 0.25)


def test_openmetrics_serves_until_ctrl_c(tmp_path: Path) -> None:
    with DISEmulator(streams={"app-logs": 3}) as dis, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        environment = {name: value for name, value in os.environ.items() if not HIDDEN.fullmatch(name)}
        with subprocess.Popen(
            [sys.executable, "-W", "error", EXAMPLES / "openmetrics.py", str(port)],
            cwd=tmp_path,
            env={**environment, **account_at(dis)},
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == f"serving http://127.0.0.1:{port}/metrics, Ctrl-C ends it\n".encode()
            assert dis.wait_for(lambda dis: dis.record_count("app-logs") == 3)
            answer = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10, proxies={"http": ""})
            missing = requests.get(f"http://127.0.0.1:{port}/other", timeout=10, proxies={"http": ""})
            process.send_signal(signal.SIGINT)
            code = process.wait(30)

    assert (answer.status_code, missing.status_code, code) == (200, 404, 0)
    assert answer.headers["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert metrics_of(answer.text)


def test_openmetrics_tells_a_port_that_is_none(tmp_path: Path) -> None:
    result = run("openmetrics.py", tmp_path, "http")

    assert (result.returncode, result.stdout) == (2, "")
    assert "invalid int value: 'http'" in result.stderr
    assert "Traceback" not in result.stderr


def test_django_ships_its_errors_and_the_records_of_the_application(tmp_path: Path) -> None:
    output = run("django_project/run.py", tmp_path).stdout

    assert output.splitlines()[:3] == ["GET /orders/1001/ -> 200", "GET /no-such-page/ -> 404", "GET /broken/ -> 500"]
    assert "INFO shop.views order 1001 shown to 127.0.0.1" in output
    assert "WARNING django.request Not Found: /no-such-page/" in output
    assert "ERROR django.request Internal Server Error: /broken/\nTraceback" in output
    assert output.endswith("LookupError: no price for /broken/\n")


def test_django_project_has_a_command_line(tmp_path: Path) -> None:
    result = run("django_project/manage.py", tmp_path, "check")

    assert result.returncode == 0
    assert "no issues" in result.stdout


def test_with_local_dis_asks_for_a_command(tmp_path: Path) -> None:
    result = run("with_local_dis.py", tmp_path, "web-logs")

    assert result.returncode == 1
    assert re.fullmatch(r"usage: .*with_local_dis\.py STREAM MODULE ARGUMENTS\.\.\.\n", result.stderr)
