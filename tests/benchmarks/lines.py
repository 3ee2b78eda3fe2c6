"""The line that every contender logs: 200 bytes with a stdlib formatter, ending in a sequence number."""

from __future__ import annotations

import logging
import random
import re

LINE_BYTES = 200
LOGGER_NAME = "shop.checkout.api"
FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
# What is left of the 200 bytes once asctime (23), the level (4), three spaces and the name have theirs.
_MESSAGE_BYTES = LINE_BYTES - 23 - 4 - 3 - len(LOGGER_NAME)
_TAIL = " seq=%08d"


def _new_messages() -> list[str]:
    """
    Returns what is logged in turn: enough different messages that no batch of 500 holds one twice.

    A body of equal lines would compress a hundredfold and show compression in a light that no log deserves.
    """
    rng = random.Random(1)
    texts = (
        f"request {rng.getrandbits(64):016x} from user {rng.randrange(10**6)} for basket {rng.getrandbits(40):010x} "
        f"answered {rng.choice((200, 201, 302, 404, 500))} in {rng.randrange(2000)} ms after {rng.randrange(40)} queries "
        f"on node {rng.randrange(64)} {'and nothing else of note happened':.<40}"
        for _ in range(1024)
    )
    return [text.replace(".", " ")[: _MESSAGE_BYTES - len(_TAIL % 0)] + _TAIL for text in texts]


MESSAGES = _new_messages()
# From asctime to the sequence number, in a text that holds nothing but such lines and what encloses them. An escaped
# or framed line would not match, and so would count as lost.
SEQUENCE = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO [\w.]+ [\w ]+ seq=\d{8}")


class OwnFormatter(logging.Formatter):
    """Makes the same text as the standard formatter, in a method of its own."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record)


def new_formatter() -> logging.Formatter:
    """Returns the formatter that every contender uses."""
    return logging.Formatter(FORMAT)


def new_loggers(handler: logging.Handler, count: int = 1) -> list[logging.Logger]:
    """Returns *count* loggers that have *handler* and nothing else; their names are all of the same length."""
    # Once for all of them: each call of setLevel goes through all loggers there are.
    logging.getLogger(LOGGER_NAME.partition(".")[0]).setLevel(logging.DEBUG)
    names = [LOGGER_NAME] if count == 1 else [f"shop.check.{number:06d}" for number in range(count)]
    loggers = [logging.getLogger(name) for name in names]
    for logger in loggers:
        logger.propagate = False
        logger.addHandler(handler)
    return loggers
