"""The fixture that runs applications."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dis_logging.emulator import DISEmulator
from tests.process.programs import Programs


@pytest.fixture
def programs(dis: DISEmulator, tmp_path: Path) -> Iterator[Programs]:
    """Runs programs against the test's emulator."""
    running = Programs(dis, tmp_path)
    yield running
    running.close()
