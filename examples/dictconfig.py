"""
Configures logging from dictconfig.json: DIS for all loggers, and a file for what DIS does not take.

    python examples/dictconfig.py
"""

import json
import logging
import logging.config
from pathlib import Path

from local_dis import local_dis_without_account

CONFIGURATION = Path(__file__).with_name("dictconfig.json")
STREAM = "app-logs"


def main() -> None:
    """Logs two records that DIS takes, and one that is too large for it."""
    logging.config.dictConfig(json.loads(CONFIGURATION.read_text(encoding="utf-8")))

    logging.getLogger("shop.orders").info("order %d accepted", 1001)
    logging.getLogger("shop.stock").warning("绿茶 is running low")
    logging.getLogger("shop.debug").info("dump of the cart: %s", "x" * 1024 * 1024)

    logging.shutdown()


if __name__ == "__main__":
    with local_dis_without_account(STREAM) as dis:
        main()
        for record in dis.records(STREAM) if dis else ():
            print(f"{record.partition_id} {record.sequence_number}: {record.text}")
    print("in undelivered.log:", Path("undelivered.log").read_text(encoding="utf-8").splitlines()[-1])
