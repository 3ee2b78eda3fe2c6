"""Ship Python log records to Huawei Cloud DIS (Data Ingestion Service)."""

from typing import TYPE_CHECKING

from dis_logging.client.client import DISClient
from dis_logging.client.credentials import Credentials
from dis_logging.client.models import PutRecordsRequestEntry, PutRecordsResult, PutRecordsResultEntry
from dis_logging.errors import (
    ConfigurationError,
    DeliveryError,
    DISError,
    NotSentError,
    ProtocolError,
    ServiceError,
    UnknownOutcomeError,
)
from dis_logging.handler import DISHandler
from dis_logging.pipeline.entry import FailureReason, Outcome, Verdict
from dis_logging.pipeline.stats import HandlerStats, Latency

if TYPE_CHECKING:
    from dis_logging.client.metadata import ECSCredentials
    from dis_logging.client.read_models import (
        CursorType,
        GetRecordsResult,
        GetRecordsResultEntry,
        PartitionDescription,
        StreamDescription,
    )

__version__ = "0.1.0"

__all__ = [
    "DISHandler",
    "HandlerStats",
    "Latency",
    "Verdict",
    "Outcome",
    "FailureReason",
    "DISClient",
    "Credentials",
    "ECSCredentials",
    "PutRecordsRequestEntry",
    "PutRecordsResult",
    "PutRecordsResultEntry",
    "CursorType",
    "GetRecordsResult",
    "GetRecordsResultEntry",
    "StreamDescription",
    "PartitionDescription",
    "DISError",
    "ConfigurationError",
    "DeliveryError",
    "NotSentError",
    "UnknownOutcomeError",
    "ServiceError",
    "ProtocolError",
    "__version__",
]


# What few programs need is imported when it is asked for.
_LATER = {
    "CursorType": "read_models",
    "ECSCredentials": "metadata",
    "GetRecordsResult": "read_models",
    "GetRecordsResultEntry": "read_models",
    "PartitionDescription": "read_models",
    "StreamDescription": "read_models",
}


if not TYPE_CHECKING:  # else any name would do for type checkers

    def __getattr__(name: str) -> object:
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value: object = getattr(import_module(f"dis_logging.client.{_LATER[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
