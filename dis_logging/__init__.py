"""Ship Python log records to Huawei Cloud DIS (Data Ingestion Service)."""

from dis_logging.client.client import DISClient
from dis_logging.client.credentials import Credentials
from dis_logging.client.metadata import ECSCredentials
from dis_logging.client.models import (
    CursorType,
    GetRecordsResult,
    GetRecordsResultEntry,
    PartitionDescription,
    PutRecordsRequestEntry,
    PutRecordsResult,
    PutRecordsResultEntry,
    StreamDescription,
)
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
