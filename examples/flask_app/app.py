"""
A Flask application that logs to DIS.

    python examples/with_local_dis.py web-logs flask --app examples/flask_app/app.py run
    python examples/with_local_dis.py web-logs gunicorn --workers 2 --chdir examples/flask_app app:app
"""

import logging.config
import os

from flask import Flask, request

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {
        "dis": {
            "class": "dis_logging.DISHandler",
            "stream_name": os.environ.get("DIS_LOGGING_STREAM_NAME", "web-logs"),
            "formatter": "line",
        },
    },
    "root": {"level": "INFO", "handlers": ["dis"]},
}
# Before the first use of app.logger, which gets a handler of its own when it finds none.
logging.config.dictConfig(LOGGING)

app = Flask(__name__)


@app.get("/orders/<int:number>/")
def order(number: int) -> str:
    """Shows one order."""
    app.logger.info("order %d shown to %s", number, request.remote_addr)
    return f"订单 {number}"


@app.get("/broken/")
def broken() -> str:
    """Raises, so Flask answers 500 and logs the traceback."""
    raise LookupError(f"no price for {request.path}")
