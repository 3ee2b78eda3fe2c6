"""
A Celery application whose worker logs to DIS. Its broker is a directory, so that it needs no service.

    python examples/celery_app/send.py
    python examples/with_local_dis.py task-logs celery --workdir examples/celery_app --app tasks worker --concurrency 2
"""

import logging.config
import os
import tempfile
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import setup_logging
from celery.utils.log import get_task_logger

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {
        "dis": {
            "class": "dis_logging.DISHandler",
            "stream_name": os.environ.get("DIS_LOGGING_STREAM_NAME", "task-logs"),
            "formatter": "line",
        },
    },
    "root": {"level": "INFO", "handlers": ["dis"]},
}

BROKER = Path(os.environ.get("SHOP_BROKER_DIRECTORY", Path(tempfile.gettempdir()) / "dis-logging-celery"))
(BROKER / "queue").mkdir(parents=True, exist_ok=True)

app = Celery("shop", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": BROKER / "queue",
    "data_folder_out": BROKER / "queue",
    "control_folder": BROKER / "control",
}
logger = get_task_logger(__name__)


@setup_logging.connect
def configure_logging(**_: Any) -> None:
    """Configures logging in place of Celery, which would replace the handlers of the root logger."""
    logging.config.dictConfig(LOGGING)


@app.task
def bill(customer: str) -> None:
    """Sends a bill."""
    logger.info("%s is billed", customer)
    if not customer.strip():
        raise ValueError("there is nobody to bill")
