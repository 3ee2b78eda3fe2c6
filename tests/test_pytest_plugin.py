"""The pytest plugin, as a user's test run sees it: in a process of its own."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

# They take their time, and import what ours must not.
OTHER_PLUGINS = ["-p", "no:cacheprovider", "-p", "no:anyio", "-p", "no:hypothesispytest"]
HIDDEN = re.compile(r"DIS_LOGGING_.*|HUAWEICLOUD_.*|PYTEST_.*|.*_proxy", re.IGNORECASE)


class Project:
    """A directory with tests."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, name: str, code: str) -> None:
        """Writes a file."""
        (self._directory / name).write_text(textwrap.dedent(code), "utf-8")

    def run(self, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs pytest."""
        kept = {name: value for name, value in os.environ.items() if not HIDDEN.fullmatch(name)}
        return subprocess.run(
            [sys.executable, "-m", "pytest", "--strict-markers", "-W", "error", *OTHER_PLUGINS],
            cwd=self._directory,
            env={**kept, "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1", **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=60,
            check=False,
        )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A directory for tests, with the settings of nobody else."""
    project = Project(tmp_path)
    project.write("pytest.ini", "[pytest]\n")
    return project


def test_handlers_of_a_test_log_to_its_own_emulator(project: Project) -> None:
    project.write(
        "test_shop.py",
        """
        import logging, os, sys
        import pytest

        logger = logging.getLogger("shop")

        def start():
            from dis_logging import DISHandler
            logger.addHandler(DISHandler())

        def test_nothing_is_imported_before_it_is_needed():
            assert not {"dis_logging", "requests", "ssl"} & set(sys.modules)

        @pytest.mark.parametrize("number", [1, 2])
        def test_each_test_starts_with_nothing(dis_emulator, number):
            assert logger.handlers == []
            start()
            logger.error("late")
            dis_emulator.assert_logged("late", logger="shop", stream="app-logs", times=1)

        @pytest.mark.dis_streams({"audit": 3})
        class TestStreams:
            @pytest.mark.dis_streams({"web-logs": 2, "audit": 4})
            def test_markers_add_streams(self, dis_emulator):
                assert dis_emulator.stream_names == ("app-logs", "audit", "web-logs")
                assert len(dis_emulator.requests) == 0

        def test_the_environment_is_as_before():
            assert os.environ["DIS_LOGGING_AK"] == "of-the-account"
            assert os.environ["DIS_LOGGING_AUTH_TOKEN"] == "token-of-the-account"
            assert "DIS_LOGGING_ENDPOINT" not in os.environ
        """,
    )

    result = project.run(DIS_LOGGING_AK="of-the-account", DIS_LOGGING_AUTH_TOKEN="token-of-the-account")

    assert result.returncode == 0, result.stdout
    assert "5 passed" in result.stdout


def test_emulator_can_start_before_the_application_is_imported(project: Project) -> None:
    project.write(
        "pytest.ini",
        "[pytest]\ndis_emulator_autostart = true\ndis_streams =\n    web-logs:3\n    audit\n",
    )
    project.write(
        "conftest.py",
        """
        import logging.config
        logging.config.dictConfig({
            "version": 1,
            "handlers": {"dis": {"class": "dis_logging.DISHandler"}},
            "root": {"handlers": ["dis"]},
        })
        """,
    )
    project.write(
        "test_shop.py",
        """
        import logging
        import pytest

        logging.warning("imported")

        @pytest.mark.parametrize("number", [1, 2])
        def test_application_keeps_its_handler(dis_emulator, number):
            assert dis_emulator.stream_names == ("web-logs", "audit")
            logging.warning("late")
            (record,) = dis_emulator.logged("late")
            assert record.stream == "web-logs"
            assert len(dis_emulator.logged()) == 1
        """,
    )

    result = project.run()

    assert result.returncode == 0, result.stdout
    assert "2 passed" in result.stdout


def test_a_wrong_setting_or_marker_is_named(project: Project) -> None:
    project.write("pytest.ini", "[pytest]\ndis_emulator_autostart = true\ndis_streams = web logs\n")
    project.write("test_shop.py", "def test_anything(dis_emulator): pass\n")
    setting = project.run()
    project.write("pytest.ini", "[pytest]\n")
    project.write(
        "test_shop.py",
        "import pytest\n@pytest.mark.dis_streams('audit')\ndef test_anything(dis_emulator): pass\n",
    )
    marker = project.run()

    assert setting.returncode == 4
    assert setting.stdout == "ERROR: dis_streams: 'web logs' is neither NAME nor NAME:PARTITIONS\n\n"
    assert marker.returncode == 1
    assert 'the marker dis_streams takes the streams as one dict, such as {"audit": 3}' in marker.stdout
    assert "Traceback" not in setting.stdout + marker.stdout
