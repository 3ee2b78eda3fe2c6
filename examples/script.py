"""
A nightly job that logs to DIS: the handler takes the place of any other.

    python examples/script.py
"""

import logging
import os
import sys

from local_dis import local_dis_without_account

from dis_logging import DISHandler

STREAM = os.environ.get("DIS_LOGGING_STREAM_NAME", "app-logs")
logger = logging.getLogger("nightly.invoices")


def bill(customer: str, amounts: list[int]) -> None:
    """Logs what a customer owes on average."""
    try:
        logger.info("%s owes %d on average", customer, sum(amounts) // len(amounts))
    except ZeroDivisionError:
        logger.exception("%s has bought nothing", customer)


def run() -> bool:
    """Does the night's work and returns whether all of its records were delivered."""
    handler = DISHandler(STREAM)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])

    logger.info("billing 3 customers")
    bill("李雷", [120, 80])
    bill("Jørgen", [])
    bill("Ольга", [45])

    handler.flush()  # only to tell how it went: leaving the program would send the rest as well
    print(handler.stats())
    return handler.stats().failed == 0


if __name__ == "__main__":
    with local_dis_without_account(STREAM) as dis:
        delivered = run()
        logging.shutdown()
        for record in dis.records(STREAM) if dis else ():
            print(f"{record.partition_id} {record.sequence_number}: {record.text.splitlines()[0]}")
    sys.exit(0 if delivered else 1)
