"""
Runs a server with a local DIS beside it, and prints in the end what arrived there; with an account it only runs the server.

    python examples/with_local_dis.py STREAM MODULE ARGUMENTS...
"""

import contextlib
import signal
import subprocess
import sys

from local_dis import local_dis_without_account


def run_server(module: str, arguments: list[str]) -> int:
    """Runs ``python -m`` *module* to its end and returns its exit code; passes SIGTERM on."""
    # Ctrl-C reaches the server by itself, and what it leaves is to be printed.
    signal.signal(signal.SIGINT, lambda *_: None)
    server = subprocess.Popen([sys.executable, "-m", module, *arguments])  # noqa: S603 - the reader's own command
    signal.signal(signal.SIGTERM, lambda number, _: server.send_signal(number))
    while True:
        # A signal may reach one of the threads of the local DIS, which wakes nobody who waits for ever.
        with contextlib.suppress(subprocess.TimeoutExpired):
            return server.wait(timeout=1)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(f"usage: {sys.argv[0]} STREAM MODULE ARGUMENTS...")
    stream, server_module, *server_arguments = sys.argv[1:]
    with local_dis_without_account(stream) as dis:
        exit_code = run_server(server_module, server_arguments)
        for record in dis.records(stream) if dis else ():
            print(f"{record.partition_id} {record.sequence_number}: {record.text}")
    sys.exit(exit_code if exit_code >= 0 else 128 - exit_code)
