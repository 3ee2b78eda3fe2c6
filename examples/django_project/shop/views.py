"""Two views: one that works, and one that does not."""

import logging

from django.http import HttpRequest, HttpResponse

logger = logging.getLogger(__name__)


def order(request: HttpRequest, number: int) -> HttpResponse:
    """Shows one order."""
    logger.info("order %d shown to %s", number, request.META["REMOTE_ADDR"])
    return HttpResponse(f"订单 {number}")


def broken(request: HttpRequest) -> HttpResponse:
    """Raises, so Django answers 500 and logs the traceback through django.request."""
    raise LookupError(f"no price for {request.path}")
