"""
What lets the examples run without an account: the settings of a local DIS, put where the handler looks for an account's.

Your own program needs nothing of this: it sets the environment variables that README.md lists, or gives the options.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from dis_logging.emulator import DISEmulator

ACCOUNT_VARIABLES = ("DIS_LOGGING_AK", "HUAWEICLOUD_SDK_AK", "DIS_LOGGING_AUTH_TOKEN")


@contextmanager
def local_dis_without_account(stream_name: str) -> Iterator[DISEmulator | None]:
    """Runs an emulator for as long as the context lasts and yields it; with an account configured it yields None."""
    if any(os.environ.get(name) for name in ACCOUNT_VARIABLES):
        yield None
        return
    with DISEmulator(streams={stream_name: 3}) as dis:
        settings = {f"DIS_LOGGING_{name.upper()}": value for name, value in dis.client_options().items()}
        os.environ.update(settings)
        try:
            yield dis
        finally:
            for name in settings:
                os.environ.pop(name, None)
