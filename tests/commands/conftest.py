"""What the tests of several commands need."""

import os

import pytest


@pytest.fixture
def no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes away whatever this machine has set for DIS, proxies included."""
    for name in list(os.environ):
        if name.startswith(("DIS_LOGGING_", "HUAWEICLOUD_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HUAWEICLOUD_SDK_CREDENTIALS_FILE", os.devnull)
