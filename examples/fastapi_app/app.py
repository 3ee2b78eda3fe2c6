"""
A FastAPI application; its logging, and uvicorn's own, is configured by log_config.json.

    python examples/with_local_dis.py web-logs uvicorn --app-dir examples/fastapi_app \\
        --log-config examples/fastapi_app/log_config.json --workers 2 app:app
"""

import logging

from fastapi import FastAPI

logger = logging.getLogger("shop.orders")
app = FastAPI()


@app.get("/orders/{number}/")
async def order(number: int) -> dict[str, int]:
    """Shows one order."""
    logger.info("order %d shown", number)
    return {"order": number}


@app.get("/broken/")
async def broken() -> None:
    """Raises, so uvicorn answers 500 and logs the traceback."""
    raise LookupError("no price for /broken/")
