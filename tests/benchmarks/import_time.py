"""
Measures what importing the package takes beyond requests and tenacity: ``python -m tests.benchmarks.import_time``.

In CPU time, which an import is made of and which a busy machine changes least.

A module of its own that imports next to nothing, since whatever is loaded already costs the package nothing. It also
looks for asyncio: once that is imported, every `LogRecord` from Python 3.12 on asks it for the current task.
"""

import sys
import time

import requests  # noqa: F401 - not counted
import tenacity  # noqa: F401 - not counted

had_asyncio = "asyncio" in sys.modules
started = time.process_time()
import dis_logging  # noqa: E402, F401 - what is counted

milliseconds = (time.process_time() - started) * 1000
brings_asyncio = "asyncio" in sys.modules and not had_asyncio
print(f'{{"import_ms": {milliseconds}, "asyncio": {int(brings_asyncio)}, "asyncio_before": {int(had_asyncio)}}}')
