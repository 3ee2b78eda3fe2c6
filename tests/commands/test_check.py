"""``dis-logging check``: what it says of configurations, and of every way in which DIS may be out of reach."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme

from dis_logging.cli import main
from dis_logging.commands.check import without_secrets
from dis_logging.emulator import DISEmulator
from dis_logging.emulator.app import Operation
from dis_logging.emulator.faults import Hang, Refuse, RefuseEntries, Reply
from tests.certificates import bundle, server_context
from tests.conftest import STREAM
from tests.raw_server import RawServer, answer, no_server

SECRET = "a-secret-that-nobody-may-see-0123456789"
pytestmark = pytest.mark.usefixtures("no_account")


class Result(NamedTuple):
    """What a run of the command left."""

    code: int
    out: str
    err: str

    @property
    def steps(self) -> dict[str, str]:
        """How each step ended."""
        return dict(re.findall(r"^  (\w+) +(ok|warn|FAIL|skip)\b", self.out, re.MULTILINE))

    def line(self, step: str) -> str:
        """The line of a step and, if there is one, that of its advice."""
        match = re.search(rf"^  {step} +(ok|warn|FAIL|skip)\b.*(\n +-> .*)?", self.out, re.MULTILINE)
        assert match is not None, self.out
        return match[0]


Check = Callable[..., Result]


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Check:
    """Returns a function that runs the command in this process."""

    def check(*arguments: str) -> Result:
        code = main(["check", *arguments])
        shown = capsys.readouterr()
        assert SECRET not in shown.out + shown.err
        return Result(code, shown.out, shown.err)

    return check


@pytest.fixture
def account(no_account: None, dis: DISEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of somebody whose account is at the emulator."""
    set_account(dis, monkeypatch)


def set_account(dis: DISEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    dis.sk = SECRET
    for name, value in dis.handler_options(STREAM).items():
        monkeypatch.setenv(f"DIS_LOGGING_{name.upper()}", value)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Returns a function that writes a dictConfig file whose DIS handler has the given options, and returns its path."""

    def write(options: dict[str, Any], **more: Any) -> str:
        handler = {"class": "dis_logging.DISHandler", **options}
        config = {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"dis": handler, **more.pop("handlers", {})},
            "root": {"level": "INFO", "handlers": ["dis"]},
            **more,
        }
        path = tmp_path / "logging.json"
        path.write_text(json.dumps(config), "utf-8")
        return str(path)

    return write


# -- all well -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("account")
def test_all_is_well_and_nothing_is_stored(check: Check, dis: DISEmulator) -> None:
    result = check()

    assert (result.code, result.err) == (0, "")
    assert result.steps == {
        "dns": "ok",
        "tcp": "ok",
        "tls": "skip",
        "clock": "ok",
        "signature": "ok",
        "stream": "ok",
        "record": "skip",
    }
    assert "3 partitions to write to" in result.line("stream")
    assert dis.records(STREAM) == ()


@pytest.mark.usefixtures("account")
def test_every_step_that_was_taken_has_its_time(check: Check) -> None:
    result = check("--write")

    for step in ("dns", "tcp", "clock", "signature", "stream", "write", "read"):
        assert re.search(rf"^  {step} +ok +\d+ ms  ", result.out, re.MULTILINE)


@pytest.mark.usefixtures("account")
def test_a_test_record_is_read_back_when_it_is_asked_for(check: Check, dis: DISEmulator) -> None:
    result = check("--write")

    (stored,) = dis.records(STREAM)
    assert result.code == 0
    assert f"stored in {stored.partition_id}, sequence number {stored.sequence_number}" in result.line("write")
    assert "read back" in result.line("read")
    assert (stored.partition_key, stored.text[:31]) == ("dis_logging.check", "dis-logging check: test record ")
    assert [request.operation for request in dis.requests[-3:]] == [
        Operation.PUT_RECORDS,
        Operation.GET_CURSOR,
        Operation.GET_RECORDS,
    ]


@pytest.mark.usefixtures("account")
def test_a_test_record_is_found_behind_others(check: Check, dis: DISEmulator, write: Callable[..., str]) -> None:
    """Its own sequence number leads to it, whatever the stream holds already; here in the formats of the configuration."""
    path = write({**dis.handler_options(STREAM), "body_format": "protobuf", "compression": "zstd"})
    assert check("--write", "--config", path).code == 0
    assert check("--write", "--config", path).code == 0

    assert [stored.sequence_number for stored in dis.records(STREAM)] == ["0", "1"]


# -- where options come from ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("account")
def test_each_option_is_shown_with_its_origin_and_no_secret(
    check: Check, dis: DISEmulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    profile = tmp_path / "credentials"
    profile.write_text(f"[basic]\nak = {dis.ak}\nsk = {SECRET}\nproject_id = {dis.project_id}\n")
    monkeypatch.setenv("HUAWEICLOUD_SDK_CREDENTIALS_FILE", str(profile))
    for name in ("AK", "SK", "PROJECT_ID", "REGION"):
        monkeypatch.delenv(f"DIS_LOGGING_{name}")
    monkeypatch.setenv("HUAWEICLOUD_SDK_REGION", dis.region)

    result = check(STREAM)

    rows = {line.split()[0]: line.split(None, 2)[1:] for line in result.out.splitlines()[1:7]}
    assert result.code == 0
    assert rows == {
        "stream_name": [STREAM, "STREAM"],
        "endpoint": [dis.endpoint, "environment variable DIS_LOGGING_ENDPOINT"],
        "region": [dis.region, "environment variable HUAWEICLOUD_SDK_REGION"],
        "project_id": [dis.project_id, f"profile file {profile}"],
        "ak": [dis.ak, f"profile file {profile}"],
        "sk": ["********", f"profile file {profile}"],
    }


def test_options_of_a_file_are_shown_with_its_name(check: Check, dis: DISEmulator, write: Callable[..., str]) -> None:
    dis.sk = SECRET
    path = write({**dis.handler_options(STREAM), "flush_interval": 0.5, "region": "elsewhere"})

    result = check("--config", path, "--region", dis.region)

    assert result.code == 0
    assert re.search(rf"^  sk +\*+ +{re.escape(path)}$", result.out, re.MULTILINE)
    assert re.search(rf"^  flush_interval +0.5 +{re.escape(path)}$", result.out, re.MULTILINE)
    assert re.search(rf"^  region +{dis.region} +--region$", result.out, re.MULTILINE)


@pytest.mark.usefixtures("account")
def test_a_missing_option_is_wrong_configuration(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIS_LOGGING_REGION")

    result = check()

    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "dis-logging check: region is missing: give --region, or set DIS_LOGGING_REGION or HUAWEICLOUD_SDK_REGION\n"
    )


@pytest.mark.usefixtures("account")
def test_all_that_is_missing_is_told_at_once(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STREAM_NAME", "REGION", "PROJECT_ID", "AK", "SK"):
        monkeypatch.delenv(f"DIS_LOGGING_{name}")

    result = check()

    said = [line.removeprefix("dis-logging check: ").split(":")[0] for line in result.err.splitlines()]
    assert result.code == 2
    assert said == [f"{name} is missing" for name in ("stream_name", "region", "project_id", "ak", "sk")]
    assert "ak is missing: set DIS_LOGGING_AK or HUAWEICLOUD_SDK_AK\n" in result.err


@pytest.mark.usefixtures("account")
def test_what_is_wrong_is_told_beside_what_is_missing(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIS_LOGGING_REGION")
    monkeypatch.setenv("DIS_LOGGING_PROJECT_ID", "no id")

    errors = check().err

    assert re.search("^dis-logging check: region is missing", errors, re.MULTILINE)
    assert re.search("^dis-logging check: project_id must be letters", errors, re.MULTILINE)


def test_every_option_of_the_handler_is_looked_at(check: Check, dis: DISEmulator, write: Callable[..., str]) -> None:
    result = check("--config", write({**dis.handler_options(STREAM), "max_batch_records": 0}))

    assert result.code == 2
    assert "max_batch_records must be from 1" in result.err


@pytest.mark.usefixtures("account")
def test_a_region_that_is_not_that_of_the_endpoint_is_a_warning(check: Check) -> None:
    with no_server() as port:
        result = check("--region", "cn-north-1", "--endpoint", f"http://dis.cn-north-4.localhost:{port}")

    assert "region is cn-north-1, but the endpoint is that of cn-north-4" in result.err


# -- what may be wrong ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("account")
def test_a_name_that_is_not_found_ends_the_way(check: Check) -> None:
    result = check("--endpoint", "https://dis.nowhere-1.invalid")

    assert result.code == 1
    assert "FAIL" in result.line("dns")
    assert "-> check endpoint and region" in result.line("dns")
    assert "not tried, because dns failed" in result.line("stream")
    assert result.err == "dis-logging check: dns failed\n"


@pytest.mark.usefixtures("account")
def test_a_port_where_nobody_listens_is_told(check: Check) -> None:
    with no_server() as port:
        result = check("--endpoint", f"http://127.0.0.1:{port}")

    assert result.code == 1
    assert "Connection refused" in result.line("tcp")
    assert "nothing listens" in result.line("tcp")


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[DISEmulator, str]]:
    """A local DIS with TLS, and the path of what to trust."""
    ca = trustme.CA()
    with DISEmulator({STREAM: 1}, tls=server_context(ca)) as dis:
        yield dis, bundle(ca, tmp_path)


def test_tls_is_verified_with_the_bundle_of_the_configuration(
    check: Check, secure: tuple[DISEmulator, str], write: Callable[..., str]
) -> None:
    dis, trusted = secure

    result = check("--config", write({**dis.handler_options(STREAM), "verify": trusted}))

    assert (result.code, result.err) == (0, "")
    assert re.search(r"ok .* TLSv1\.\d, certificate by trustme .*, valid until ", result.line("tls"))


def test_an_unknown_authority_is_told_with_the_cure(
    check: Check, secure: tuple[DISEmulator, str], write: Callable[..., str]
) -> None:
    result = check("--config", write(secure[0].handler_options(STREAM)))

    assert result.code == 1
    assert "FAIL" in result.line("tls")
    assert "certificate refused" in result.line("tls")
    assert "give the CA bundle of your network as verify" in result.line("tls")


def test_a_certificate_of_another_host_is_told(check: Check, tmp_path: Path, write: Callable[..., str]) -> None:
    ca = trustme.CA()
    with DISEmulator({STREAM: 1}, tls=server_context(ca, "elsewhere.example")) as dis:
        result = check("--config", write({**dis.handler_options(STREAM), "verify": bundle(ca, tmp_path)}))

    assert result.code == 1
    assert "the certificate is for another host" in result.line("tls")


def test_an_expired_certificate_is_told(check: Check, tmp_path: Path, write: Callable[..., str]) -> None:
    ca = trustme.CA()
    past = datetime.now(timezone.utc) - timedelta(days=1)
    with DISEmulator({STREAM: 1}, tls=server_context(ca, "127.0.0.1", not_after=past)) as dis:
        result = check("--config", write({**dis.handler_options(STREAM), "verify": bundle(ca, tmp_path)}))

    assert result.code == 1
    assert "has expired" in result.line("tls")


@pytest.mark.usefixtures("account")
def test_a_server_without_tls_is_told(check: Check) -> None:
    with RawServer(lambda peer: peer.send(answer(400))) as server:
        result = check("--endpoint", f"https://127.0.0.1:{server.port}")

    assert result.code == 1
    assert "TLS failed" in result.line("tls")
    assert "does not speak TLS" in result.line("tls")


def test_tls_without_verification_is_a_warning(
    check: Check, secure: tuple[DISEmulator, str], write: Callable[..., str]
) -> None:
    path = write({**secure[0].handler_options(STREAM), "verify": False})

    assert check("--config", path).code == 0
    strict = check("--config", path, "--strict")
    assert strict.code == 1
    assert "certificate not verified" in strict.line("tls")
    assert strict.err.endswith("there are warnings\n")


def test_what_dictconfig_would_refuse_is_told_and_the_way_is_tried_all_the_same(
    check: Check, dis: DISEmulator, write: Callable[..., str]
) -> None:
    path = write({**dis.handler_options(STREAM), "formatter": "line"}, handlers={"other": {}})

    result = check("--config", path)

    assert result.code == 2
    assert "dis-logging check: handler 'dis' has the formatter 'line', which the configuration lacks\n" in result.err
    assert "dis-logging check: handler 'other' has no class\n" in result.err
    assert "ok" in result.line("stream")


def test_classes_next_to_the_configuration_are_found(
    check: Check, dis: DISEmulator, write: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the program finds them that is run there."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "formatters_of_mine.py").write_text("import logging\nclass Line(logging.Formatter): ...\n")
    path = write(
        {**dis.handler_options(STREAM), "formatter": "line"}, formatters={"line": {"()": "formatters_of_mine.Line"}}
    )

    elsewhere = check("--config", path)
    monkeypatch.chdir(tmp_path)

    assert elsewhere.code == 2
    told = (
        "formatter 'line' cannot be made: No module named 'formatters_of_mine'; run it in the directory that holds it"
    )
    assert told in elsewhere.err
    assert check("--config", path).code == 0


def test_a_level_that_only_the_program_knows_is_a_warning(
    check: Check, dis: DISEmulator, write: Callable[..., str]
) -> None:
    path = write({**dis.handler_options(STREAM), "level": "TRACE"})

    result = check("--config", path)

    assert result.code == 0
    assert "warning: handler 'dis' has the level 'TRACE', which logging does not know" in result.err
    assert check("--config", path, "--strict").code == 1


@pytest.mark.parametrize(("minutes", "ending"), [(5, "warn"), (60, "FAIL"), (-60, "FAIL")])
def test_a_wrong_clock_is_told_with_its_skew(
    check: Check, monkeypatch: pytest.MonkeyPatch, minutes: int, ending: str
) -> None:
    skew = timedelta(minutes=minutes)
    with DISEmulator({STREAM: 1}, clock=lambda: datetime.now(timezone.utc) + skew) as dis:
        set_account(dis, monkeypatch)
        result = check()

    assert result.steps["clock"] == ending
    assert f"this machine is {abs(minutes)} min {'behind' if minutes > 0 else 'ahead of'} DIS" in result.line("clock")
    assert "NTP" in result.line("clock")
    assert result.code == (1 if ending == "FAIL" else 0)


def test_a_wrong_clock_hides_nothing_behind_it(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client signs by the clock of DIS once that has complained, as the handler does."""
    with DISEmulator({STREAM: 1}, clock=lambda: datetime.now(timezone.utc) + timedelta(hours=1)) as dis:
        set_account(dis, monkeypatch)
        result = check()

    assert (result.steps["signature"], result.steps["stream"]) == ("ok", "ok")


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize(
    ("name", "value", "code", "advice"),
    [
        ("SK", "wrong", "DIS.4112", "check sk"),
        ("AK", "WRONG", "DIS.4107", "check ak"),
        ("REGION", "cn-east-3", "DIS.4111", "set region to the region of the endpoint"),
        ("PROJECT_ID", "feedfeedfeedfeedfeedfeedfeedfeed", "DIS.4117", "set project_id"),
        ("AUTH_TOKEN", "wrong", "DIS.4114", "get a new IAM token"),
    ],
)
def test_wrong_keys_are_told_with_the_cure(
    check: Check, monkeypatch: pytest.MonkeyPatch, name: str, value: str, code: str, advice: str
) -> None:
    monkeypatch.setenv(f"DIS_LOGGING_{name}", value)

    result = check()

    assert result.code == 1
    assert result.steps["signature"] == "FAIL"
    assert code in result.line("signature")
    assert advice in result.line("signature")
    assert result.steps["stream"] == "skip"


@pytest.mark.usefixtures("account")
def test_a_missing_stream_is_told_with_the_cure(check: Check) -> None:
    result = check("nowhere")

    assert result.code == 1
    assert (result.steps["signature"], result.steps["stream"]) == ("ok", "FAIL")
    assert "-> create the stream" in result.line("stream")


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize(
    ("fault", "step", "advice"),
    [
        (Refuse(403, "DIS.4116"), "stream", "permission"),
        (Refuse(400, "DIS.4309"), "signature", "wait 30 minutes"),
        (Refuse(503, ""), "signature", "DIS's own trouble"),
        (Refuse(302, ""), "signature", "redirects"),
        (Refuse(404, "APIGW.0101", gateway=True), "signature", "knows no DIS"),
        (Refuse(400, "DIS.4303"), "stream", "wait"),
        (Reply(body=b"<html>"), "signature", "check endpoint"),
        (Reply(body=b'{"partitions": [], "status": "FROZEN"}'), "stream", "in arrears"),
    ],
)
def test_every_refusal_has_its_step_and_its_cure(
    check: Check, dis: DISEmulator, fault: Refuse | Reply, step: str, advice: str
) -> None:
    with dis.rule(fault, operation=Operation.DESCRIBE_STREAM):
        result = check()

    assert result.code == 1
    assert result.steps[step] == "FAIL"
    assert advice in result.line(step)


def test_a_service_that_hangs_is_told_in_time(check: Check, dis: DISEmulator, write: Callable[..., str]) -> None:
    path = write({**dis.handler_options(STREAM), "request_timeout": 0.3})
    with dis.rule(Hang(), operation=Operation.DESCRIBE_STREAM):
        result = check("--config", path)

    assert result.code == 1
    assert "did not answer in time" in result.line("signature")


@pytest.mark.usefixtures("account")
def test_a_key_that_may_only_upload_passes_with_a_test_record(check: Check, dis: DISEmulator) -> None:
    refused = Refuse(403, "DIS.4116")
    with dis.rule(refused, operation=Operation.DESCRIBE_STREAM), dis.rule(refused, operation=Operation.GET_CURSOR):
        result = check("--write")

    assert result.code == 0
    assert result.steps["stream"] == "warn"
    assert (result.steps["write"], result.steps["read"]) == ("ok", "warn")


@pytest.mark.usefixtures("account")
def test_a_refused_test_record_is_told_with_the_cure(check: Check, dis: DISEmulator) -> None:
    dis.play(RefuseEntries("DIS.4303"))

    result = check("--write")

    assert result.code == 1
    assert "DIS refused the record (DIS.4303)" in result.line("write")
    assert "-> wait" in result.line("write")
    assert result.steps["read"] == "skip"


@pytest.mark.usefixtures("account")
def test_another_record_in_the_place_of_the_stored_one_is_a_failure(check: Check, dis: DISEmulator) -> None:
    body = b'{"records":[{"sequence_number":"0","data":"eA=="}],"next_partition_cursor":"x"}'
    dis.play(Reply(body=body), operation=Operation.GET_RECORDS)

    result = check("--write")

    assert result.code == 1
    assert "another record is where it was stored" in result.line("read")


def test_through_a_proxy_the_direct_steps_are_skipped(
    check: Check, dis: DISEmulator, write: Callable[..., str]
) -> None:
    """The emulator takes what is sent to a proxy; its name would not be found without."""
    options = {
        **dis.handler_options(STREAM),
        "endpoint": "http://dis.far-away.invalid",
        "allow_http": True,
        "proxies": {"http": f"http://user:{SECRET}@127.0.0.1:{dis.port}"},
    }

    result = check("--config", write(options))

    assert [result.steps[step] for step in ("dns", "tcp", "tls")] == ["skip"] * 3
    assert f"through the proxy http://127.0.0.1:{dis.port}" in result.line("dns")
    assert result.steps["clock"] == "ok"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:word@proxy:3128", "http://proxy:3128"),
        ("http://proxy:3128/word?token=word#word", "http://proxy:3128"),
        ("socks5h://user:word@[::1]:1080/", "socks5h://[::1]:1080"),
        ("http://user:wo/word@proxy", "********"),
        ("http://proxy", "http://proxy"),
    ],
)
def test_of_a_proxy_only_the_host_is_shown(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


def test_a_proxy_that_is_away_ends_the_way(check: Check, dis: DISEmulator, write: Callable[..., str]) -> None:
    with no_server() as port:
        options = {**dis.handler_options(STREAM), "proxies": {"http": f"http://127.0.0.1:{port}"}}
        result = check("--config", write(options))

    assert result.code == 1
    assert "FAIL" in result.line("clock")
    assert "proxy" in result.line("clock")
    assert result.steps["signature"] == "skip"


def test_a_callable_without_keys_is_told(
    check: Check, dis: DISEmulator, write: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_keys.py").write_text(f"def current():\n    raise KeyError({SECRET!r})\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    options = {name: value for name, value in dis.handler_options(STREAM).items() if name not in ("ak", "sk")}

    result = check("--config", write({**options, "credentials": "ext://broken_keys.current"}))

    assert result.code == 1
    assert "the credentials callable raised KeyError" in result.line("signature")
    assert "does the callable work?" in result.line("signature")


def test_a_server_that_hangs_in_tls_is_told_in_time(check: Check, write: Callable[..., str], dis: DISEmulator) -> None:
    with RawServer(lambda peer: peer.hold()) as server:
        options = {
            **dis.handler_options(STREAM),
            "endpoint": f"https://127.0.0.1:{server.port}",
            "request_timeout": 0.3,
        }
        result = check("--config", write(options))

    assert result.code == 1
    assert "TLS failed: no answer in time" in result.line("tls")


def test_all_handlers_of_a_configuration_are_checked(check: Check, dis: DISEmulator, write: Callable[..., str]) -> None:
    other = {"class": "dis_logging.DISHandler", **dis.handler_options("nowhere")}
    path = write(dis.handler_options(STREAM), handlers={"audit": other}, loggers={"audit": {"handlers": ["audit"]}})

    result = check("--config", path)

    assert result.code == 1
    assert re.findall("^Handler .*", result.out, re.MULTILINE) == ["Handler 'dis'", "Handler 'audit'"]
    assert result.err == "dis-logging check: handler 'audit': stream failed\n"
    assert check("--config", path, "--handler", "dis").code == 0


def test_the_command_itself_has_no_colours_in_a_pipe(dis: DISEmulator, write: Callable[..., str]) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-m", "dis_logging", "check", "--config", write(dis.handler_options(STREAM))],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )

    assert (result.returncode, result.stderr) == (0, "")
    assert "\x1b" not in result.stdout
