"""README.md is true: its programs run and print what it says, and its tables are those of the code."""

import inspect
import logging
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import dis_logging
from dis_logging import ConfigurationError, DISError, DISHandler, HandlerStats
from dis_logging.commands.exits import EPILOG
from dis_logging.emulator import DISEmulator, faults
from dis_logging.emulator.messages import message_of
from dis_logging.pipeline.entry import FailureReason
from tests.conftest import RememberingHandler

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
HEADINGS = re.findall(r"^#+ .+$", README, re.MULTILINE)
DEMO = "python3 -m venv .venv && .venv/bin/pip install --quiet . && .venv/bin/dis-logging demo"
TESTS = (
    "python3 -m venv .venv && .venv/bin/pip install --quiet --upgrade pip && "
    ".venv/bin/pip install --quiet --editable . --group tests && .venv/bin/pytest -n 3"
)
HIDDEN = re.compile(r"DIS_LOGGING_.*|HUAWEICLOUD_.*|NO_COLOR|.*_proxy", re.IGNORECASE)


class Block(NamedTuple):
    """A fenced block of the README, and the line of its first fence."""

    language: str
    code: str
    line: int


def _blocks() -> list[Block]:
    fences = re.finditer(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [Block(match[1], match[2], README.count("\n", 0, match.start()) + 1) for match in fences]


BLOCKS = _blocks()
PROGRAMS = [block for block in BLOCKS if block.language == "python" and "def test_" not in block.code]
TESTS_IN_README = [block for block in BLOCKS if block.language == "python" and "def test_" in block.code]
COMMANDS = [line for block in BLOCKS if block.language == "console" for line in block.code.splitlines()]


def rows(line: str) -> list[list[str]]:
    """Returns the cells of the first table after *line*, without its head."""
    section = README.split(f"\n{line}\n", 1)[1]
    table = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table[0].splitlines()[2:]]


def output_after(program: Block) -> str | None:
    """Returns the text block that follows *program* with at most a sentence between them, None when there is none."""
    following = BLOCKS[BLOCKS.index(program) + 1 :][:1]
    if not following or following[0].language != "text":
        return None
    between = README.splitlines()[program.line + program.code.count("\n") + 1 : following[0].line - 1]
    return following[0].code if sum(map(bool, between)) <= 1 else None


@pytest.fixture
def account() -> Iterator[dict[str, str]]:
    """The environment of somebody who followed the README and has an account: at the emulator."""
    with DISEmulator(streams={"app-logs": 3, "web-logs": 3}) as dis:
        settings = {f"DIS_LOGGING_{name.upper()}": value for name, value in dis.client_options().items()}
        kept = {name: value for name, value in os.environ.items() if not HIDDEN.fullmatch(name)}
        yield {**kept, "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1", **settings}


def run(program: Path, environment: dict[str, str], *how: str) -> subprocess.CompletedProcess[str]:
    """Runs *program* in its own directory."""
    return subprocess.run(
        [sys.executable, "-W", "error", *how, program],
        cwd=program.parent,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


# -- programs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", PROGRAMS, ids=lambda block: f"line_{block.line}")
def test_program_runs_and_prints_what_the_readme_says(block: Block, account: dict[str, str], tmp_path: Path) -> None:
    code = block.code
    if "LOGGING = {" in code:  # Django configures logging with it
        code += "\nimport logging.config\nlogging.config.dictConfig(LOGGING)\n"
    program = tmp_path / "program.py"
    program.write_text(code, "utf-8")

    result = run(program, account)

    assert (result.returncode, result.stdout) == (0, output_after(block) or "")


def run_test(code: str, directory: Path, account: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs *code* as a test module, as its reader would."""
    program = directory / "test_program.py"
    program.write_text(code, "utf-8")
    others = ["-p", "no:cacheprovider", "-p", "no:anyio", "-p", "no:hypothesispytest"]  # these take their time
    return run(program, account, "-m", "pytest", "-q", *others, f"--rootdir={directory}")


@pytest.mark.parametrize("block", TESTS_IN_README, ids=lambda block: f"line_{block.line}")
def test_test_of_the_readme_passes(block: Block, account: dict[str, str], tmp_path: Path) -> None:
    result = run_test(block.code, tmp_path, account)

    assert result.returncode == 0, result.stdout
    assert "1 passed" in result.stdout


def test_failing_test_says_what_the_readme_says(account: dict[str, str], tmp_path: Path) -> None:
    (block,) = (block for block in TESTS_IN_README if "assert_logged" in block.code)
    failing = block.code.replace('level="WARNING"', 'level="ERROR"')
    message = output_after(block)

    result = run_test(failing, tmp_path, account)

    assert result.returncode == 1
    assert message is not None
    assert message in re.sub("^E {7}", "", result.stdout, flags=re.MULTILINE)


def test_some_programs_are_checked_against_their_output() -> None:
    assert sum(output_after(block) is not None for block in PROGRAMS) == 6


def test_demo_shows_what_the_readme_says(account: dict[str, str]) -> None:
    (shown,) = (block.code for block in BLOCKS if block.code.startswith("A small shop logs"))
    result = subprocess.run(
        [sys.executable, "-m", "dis_logging", "demo"], env=account, capture_output=True, encoding="utf-8", check=False
    )

    assert result.stdout == shown


# -- commands -------------------------------------------------------------------------------------------------------


def test_one_command_each_sets_everything_up() -> None:
    assert [line for line in COMMANDS if line.startswith("python3")] == [
        DEMO,
        DEMO,
        TESTS,
    ]  # the first in both languages


def test_every_other_command_exists() -> None:
    tools = {".venv/bin/dis-logging", ".venv/bin/pip", ".venv/bin/python", ".venv/bin/ruff", ".venv/bin/mypy"}
    for line in COMMANDS:
        command, *arguments = shlex.split(line)
        if command not in ("python3", "export"):
            assert command in tools, line
            assert all((ROOT / argument).is_file() for argument in arguments if argument.endswith(".py")), line


def test_every_block_is_of_a_language_that_is_checked_here() -> None:
    assert {block.language for block in BLOCKS} == {"python", "console", "text"}


# -- tables ---------------------------------------------------------------------------------------------------------


def spelled(name: str, default: object) -> str:
    """Returns how the README spells the default of an option."""
    if isinstance(default, Enum):
        default = default.value
    if name == "flush_level":
        return f"`{logging.getLevelName(int(str(default)))}`"
    if isinstance(default, int) and not isinstance(default, bool):
        if default % 1024 == 0:
            return f"`{default >> 20} MiB`" if default >= 2**20 else f"`{default >> 10} KiB`"
        return f"`{default:,}`"
    return f'`"{default}"`' if isinstance(default, str) else f"`{default}`"


def test_options_are_those_of_the_handler() -> None:
    parameters = list(inspect.signature(DISHandler.__init__).parameters.values())[1:]

    assert [row[0] for row in rows("## Options")] == [f"`{parameter.name}`" for parameter in parameters]
    assert [parameter.name for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY] == [
        "stream_name"
    ]


@pytest.mark.parametrize("name", [row[0].strip("`") for row in rows("## Options")])
def test_default_is_that_of_the_handler(name: str) -> None:
    default = inspect.signature(DISHandler.__init__).parameters[name].default
    (told,) = (row[2] for row in rows("## Options") if row[0] == f"`{name}`")

    if default is None:
        assert told in ("environment", "none", "one line each on stderr", "`https://dis.{region}.myhuaweicloud.com`")
    else:
        assert told == spelled(name, default)


def test_counters_are_those_of_the_handler() -> None:
    levels = (
        "`level`, `formatter` and `filters` are set as for every `logging.Handler`: "
        "as keys in `dictConfig`, or with `setLevel`, `setFormatter` and `addFilter`."
    )
    methods = dict(rows(levels))

    assert re.findall(r"`(\w+)`", methods["`stats()`"])[1:] == list(HandlerStats.__dataclass_fields__)


class AskedNames(dict[str, str]):
    """An environment that remembers which of our variables were asked for."""

    def __init__(self, **variables: str) -> None:
        super().__init__(variables)
        self.asked: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        if name.startswith(("DIS_LOGGING_", "HUAWEICLOUD_")):
            self.asked.add(name)
        return super().get(name, default)


def test_variables_are_those_that_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each construction ends at the first option that is missing; together they ask for everything."""
    stages: list[tuple[dict[str, str], dict[str, Any]]] = [
        ({}, {}),
        ({}, {"stream_name": "s"}),
        ({}, {"stream_name": "s", "region": "r"}),
        ({}, {"stream_name": "s", "region": "r", "project_id": "p"}),
        ({"DIS_LOGGING_SK": "secret"}, {"stream_name": "s", "region": "r", "project_id": "p"}),
        ({"HUAWEICLOUD_SDK_SK": "secret"}, {"stream_name": "s", "region": "r", "project_id": "p"}),
    ]
    asked: set[str] = set()
    for variables, options in stages:
        environment = AskedNames(**variables)
        monkeypatch.setattr(os, "environ", environment)
        with pytest.raises(ConfigurationError, match="is missing"):
            DISHandler(**options)
        asked |= environment.asked

    told = " ".join(row[1] for row in rows("## Environment variables"))
    profile = "HUAWEICLOUD_SDK_CREDENTIALS_FILE"  # names a file, not a value, and stands below the table
    assert f"`{profile}`" in README
    assert {*re.findall(r"`([A-Z_]+)`", told), profile} == asked


def test_failure_codes_are_those_of_the_handler() -> None:
    told = {
        row[0].strip("`") for row in rows("`dis_error_code` is DIS's own code, or one of ours; there are no others:")
    }

    assert told == {"DIS.NNNN", "http_NNN", *(reason.value for reason in FailureReason)}


def test_attributes_are_those_of_a_failed_record(dis: DISEmulator, fallback: RememberingHandler) -> None:
    handler = DISHandler(**dis.handler_options("app-logs"), fallback=fallback)
    handler.close()
    handler.handle(logging.LogRecord("shop", logging.INFO, "path", 1, "late", None, None))

    types = {name.strip("`"): kind.strip("`") for name, kind, _ in rows("## The fallback")}
    assert {name: type(vars(fallback.records[0])[name]).__name__ for name in types} == types


def test_exceptions_are_those_of_the_package() -> None:
    told = [
        name.strip("`") for name, _ in rows("A record that DIS refuses does not raise: its result has an `error_code`.")
    ]

    assert len(told) == 6
    assert all(issubclass(getattr(dis_logging, name), DISError) for name in told)


def test_exit_codes_are_those_of_the_command_line() -> None:
    told = dict(rows("### Exit codes"))

    assert told == dict(re.findall(r"^  (\d+) +(.+)$", EPILOG, re.MULTILINE))


def test_faults_are_those_of_the_emulator() -> None:
    (told,) = (line for line in README.splitlines() if line.startswith("`dis_logging.emulator.faults` has"))
    names = {name for name, item in vars(faults).items() if hasattr(item, "play") and is_dataclass(item)}

    assert set(re.findall(r"`(\w+)`", told)) == names


def test_service_codes_are_known() -> None:
    assert all(message_of(code) for code in set(re.findall(r"DIS\.\d{4}", README)))


def test_links_lead_to_files_and_headings_that_exist() -> None:
    headings = {re.sub(r"[^\w -]", "", line.strip("# ").lower()).replace(" ", "-") for line in HEADINGS}
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert target.removeprefix("#") in headings if target.startswith("#") else (ROOT / target).is_file()
