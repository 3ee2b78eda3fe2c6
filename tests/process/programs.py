"""
Runs an application in a process of its own against an emulator in this one, and accounts for what it logged.

The emulator's ledger outlives the application, however that ends; what the fallback got is in a file, what the last resort
got is on stderr.
"""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dis_logging.emulator import DISEmulator

STREAM = "app-logs"
_LAST_RESORT = "dis_logging: not delivered: "
_PATIENCE = 60.0


@dataclass(frozen=True)
class Ended:
    """
    What became of an application and of its records.

    Args:
        returncode: as `subprocess` gives it, negative for a signal.
        output: its stdout.
        errors: its stderr without the lines of the last resort.
        ended_at: when it was over, on the monotonic clock, which processes share.
        delivered: how often each text is in the emulator's ledger.
        reported: how often each text was handed to the fallback, or to stderr as the last resort.
        codes: how often the fallback got each error code.
    """

    returncode: int
    output: str
    errors: str
    ended_at: float
    delivered: Counter[str]
    reported: Counter[str]
    codes: Counter[str]

    @property
    def accounted(self) -> Counter[str]:
        """How often each text arrived anywhere."""
        return self.delivered + self.reported


class Program:
    """A running application."""

    def __init__(self, dis: DISEmulator, process: "subprocess.Popen[str]", fallback: Path) -> None:
        self.process = process
        self._dis = dis
        self._fallback = fallback

    def read_line(self) -> str:
        """Returns the next line the application prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        """Answers the application's `input()`."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def signal(self, number: int) -> None:
        """Sends the application a signal."""
        self.process.send_signal(number)

    def end(self, number: int) -> None:
        """Sends a signal to the application and to its children, which hold its stdout and stderr."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def wait(self) -> Ended:
        """Returns the account once the application has ended; fails with its stacks when it does not end."""
        try:
            output, errors = self.process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            self.end(signal.SIGABRT)  # faulthandler prints all stacks
            output, errors = self.process.communicate(timeout=10)
            pytest.fail(f"the application did not end\n{output}\n{errors}")
        ended_at = time.monotonic()
        failures = [json.loads(line) for line in self._fallback_lines()]
        last_resort, rest = _split(errors)
        return Ended(
            returncode=self.process.returncode,
            output=output,
            errors=rest,
            ended_at=ended_at,
            delivered=Counter(record.text for record in self._dis.records(STREAM)),
            reported=Counter(text for _, text in failures) + last_resort,
            codes=Counter(code for code, _ in failures),
        )

    def _fallback_lines(self) -> list[str]:
        return self._fallback.read_text("utf-8").splitlines() if self._fallback.exists() else []


class Programs:
    """Starts applications that log to *dis*; what they leave behind is in *directory*."""

    def __init__(self, dis: DISEmulator, directory: Path) -> None:
        self._dis = dis
        self._directory = directory
        self._started: list[Program] = []

    def start(self, source: str, *arguments: str, pass_fds: tuple[int, ...] = (), **options: Any) -> Program:
        """Starts a program, given as its source; *options* are the handler's."""
        script = self.write(f"program_{len(self._started)}.py", source)
        return self.start_command(str(script), *arguments, pass_fds=pass_fds, **options)

    def start_command(self, *arguments: str, pass_fds: tuple[int, ...] = (), **options: Any) -> Program:
        """Starts the interpreter with *arguments*."""
        fallback = self._directory / f"fallback_{len(self._started)}"
        paths = [os.environ.get("PYTHONPATH"), str(Path(__file__).parent)]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "DIS_TEST_OPTIONS": json.dumps({**self._dis.handler_options(STREAM), **options}),
            "DIS_TEST_FALLBACK": str(fallback),
        }
        process = subprocess.Popen(
            # Warnings are errors in here too; that of forking with threads is what some tests are about.
            [sys.executable, "-X", "faulthandler", "-W", "error", "-W", "ignore:This process", *arguments],
            cwd=self._directory,
            env=environment,
            pass_fds=pass_fds,
            start_new_session=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        program = Program(self._dis, process, fallback)
        self._started.append(program)
        return program

    def run(self, source: str, *arguments: str, **options: Any) -> Ended:
        """Runs a program to its end."""
        return self.start(source, *arguments, **options).wait()

    def write(self, name: str, source: str) -> Path:
        """Writes a file that a program needs and returns its path."""
        path = self._directory / name
        path.write_text(textwrap.dedent(source), "utf-8")
        return path

    def close(self) -> None:
        """Ends what a failed test has left running."""
        for program in self._started:
            program.end(signal.SIGKILL)
            with program.process:
                pass


def numbered(prefix: str, count: int) -> Counter[str]:
    """Returns the account of *count* texts that arrived once each: the prefix and a number from 0."""
    return Counter(f"{prefix} {number}" for number in range(count))


def _split(errors: str) -> tuple[Counter[str], str]:
    """Returns the texts that the last resort wrote, and the other lines."""
    texts: Counter[str] = Counter()
    rest: list[str] = []
    for line in errors.splitlines(keepends=True):
        if line.startswith(_LAST_RESORT):
            texts[line.rstrip("\n").rpartition(": ")[2]] += 1
        else:
            rest.append(line)
    return texts, "".join(rest)
