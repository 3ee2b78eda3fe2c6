"""
Serves the counters of a handler in the OpenMetrics text format, for Prometheus and its kin.

    python examples/openmetrics.py         logs a little, and prints what a scrape gets
    python examples/openmetrics.py 9464    serves http://127.0.0.1:9464/metrics until Ctrl-C
"""

import argparse
import inspect
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import ProxyHandler, build_opener

from local_dis import local_dis_without_account

from dis_logging import DISHandler, HandlerStats, Latency

STREAM = os.environ.get("DIS_LOGGING_STREAM_NAME", "app-logs")
CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
GAUGES = {"buffered", "buffered_bytes"}  # all other whole numbers only grow
logger = logging.getLogger("shop.orders")


def exposition(handlers: Mapping[str, DISHandler]) -> str:
    """Returns one metric for each field of HandlerStats; each of the *handlers* is told apart by its label ``stream``."""
    stats = {stream: handler.stats() for stream, handler in handlers.items()}
    lines: list[str] = []
    for field in fields(HandlerStats):
        values = {stream: getattr(each, field.name) for stream, each in stats.items()}
        lines += metric(field.name, values)
    return "".join(f"{line}\n" for line in [*lines, "# EOF"])


def metric(name: str, values: Mapping[str, object]) -> Iterator[str]:
    """Yields the lines of one metric, with its value for each stream: a number, or numbers by a word, such as a reason."""
    values = {stream: value._asdict() if isinstance(value, Latency) else value for stream, value in values.items()}
    is_gauge = name in GAUGES or any(has_fractions(value) for value in values.values())
    yield f"# TYPE dis_logging_{name} {'gauge' if is_gauge else 'counter'}"
    if name in help_texts():
        yield f"# HELP dis_logging_{name} {escaped(help_texts()[name])}"
    sample = f"dis_logging_{name}" if is_gauge else f"dis_logging_{name}_total"
    for stream, value in values.items():
        label = f'stream="{escaped(stream)}"'
        if isinstance(value, Mapping):
            for word, number in value.items():
                yield f'{sample}{{{label},{name.removesuffix("s")}="{escaped(str(word))}"}} {number}'
        elif isinstance(value, int | float):
            yield f"{sample}{{{label}}} {value}"


def has_fractions(value: object) -> bool:
    """Returns whether *value*, or what is in it, is no whole number."""
    return isinstance(value, float) or (isinstance(value, Mapping) and any(map(has_fractions, value.values())))


def help_texts() -> dict[str, str]:
    """Returns what the documentation of HandlerStats says about each field."""
    texts = re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", inspect.getdoc(HandlerStats) or "", re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in texts}


def escaped(text: str) -> str:
    """Returns *text* as it stands between quotes, or in a HELP line."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


@contextmanager
def serving(handlers: Mapping[str, DISHandler], port: int = 0) -> Iterator[str]:
    """Serves the counters on loopback and gives the URL; port 0 takes a free one."""

    class Scrape(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/metrics":
                self.send_error(404)
                return
            body = exposition(handlers).encode()
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Says nothing; a scrape comes every few seconds."""

    with ThreadingHTTPServer(("127.0.0.1", port), Scrape) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/metrics"
        finally:
            server.shutdown()


def work(handler: DISHandler) -> None:
    """Logs a little."""
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for number in range(3):
        logger.info("order %d accepted", 1001 + number)


def scrape(url: str) -> str:
    """Returns what a scraper gets."""
    with build_opener(ProxyHandler({})).open(url, timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def serve_until_ctrl_c(handler: DISHandler, port: int) -> None:
    """Serves the counters at a port that the scraper knows."""
    with serving({STREAM: handler}, port) as url:
        work(handler)
        print(f"serving {url}, Ctrl-C ends it", flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


def print_a_scrape(handler: DISHandler) -> None:
    """Prints what a scraper would get."""
    with serving({STREAM: handler}) as url:
        work(handler)
        handler.flush()
        print(scrape(url), end="")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serves the counters of a handler in the OpenMetrics text format.")
    parser.add_argument("port", nargs="?", type=int, choices=range(1, 65536), metavar="PORT", help="1 to 65535")
    port = parser.parse_args().port
    with local_dis_without_account(STREAM):
        handler = DISHandler(STREAM)
        if port:
            serve_until_ctrl_c(handler, port)
        else:
            print_a_scrape(handler)
        logging.shutdown()
    sys.exit(1 if handler.stats().failed else 0)
