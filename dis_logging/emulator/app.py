"""From request to response: which operation a request asks for, who may ask, and how what goes wrong is told. No sockets."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import NamedTuple

from dis_logging.client import wire
from dis_logging.emulator import checkpoints, cursors, management, uploads
from dis_logging.emulator.access import Access
from dis_logging.emulator.call import Call, EntryRule
from dis_logging.emulator.consumers import AppExistsError, UnknownAppError
from dis_logging.emulator.messages import Head, RefusalError, Request, Response, message_of, refusal, status_of
from dis_logging.emulator.store import ExpiredRecordError, Store, UnknownPartitionError, UnknownStreamError

# The base path before /v2 is free: a historic endpoint has /dis-gw there.
# DOTALL keeps a line break in it from costing a search from every other "/v2/".
_PATH = re.compile(r".*?/v2/(?P<project>[^/]+)/(?P<resource>.+?)/?", re.DOTALL)


class Operation(Enum):
    """What a request asks for, by its method and path; the values are the names that the Java SDK and others use."""

    PUT_RECORDS = "PutRecords"
    GET_RECORDS = "GetRecords"
    GET_CURSOR = "GetCursor"
    CREATE_STREAM = "CreateStream"
    LIST_STREAMS = "ListStreams"
    DESCRIBE_STREAM = "DescribeStream"
    DELETE_STREAM = "DeleteStream"
    CREATE_APP = "CreateApp"
    LIST_APPS = "ListApps"
    DESCRIBE_APP = "DescribeApp"
    DELETE_APP = "DeleteApp"
    COMMIT_CHECKPOINT = "CommitCheckpoint"
    GET_CHECKPOINT = "GetCheckpoint"
    DELETE_CHECKPOINT = "DeleteCheckpoint"


class App:
    """
    The emulated service.

    Args:
        store: where entries go.
        access: who may send them.
        clock: the service's time, aware.
    """

    def __init__(self, store: Store, access: Access, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._access = access
        self.clock = clock

    def operation(self, head: Head) -> Operation | None:
        """Returns what a request of this *head* asks for, None when there is no such thing."""
        route = _route(head)
        return None if route is None else route.operation

    def respond(self, request: Request, rules: Sequence[EntryRule] = ()) -> Response:
        """Returns the answer to *request*, after storing the entries that no rule refuses."""
        if request.head.content_length > wire.MAX_BODY_BYTES:
            return refusal(413, "DIS.4200", "Request entity too large.", gateway=True)
        route = _route(request.head)
        if route is None:
            # What the API gateway in front of DIS says (API Gateway, Error Codes).
            text = "The API does not exist or has not been published in the environment"
            return refusal(404, "APIGW.0101", text, gateway=True)
        now = self.clock()
        try:
            self._access.verify(request, now)
            if route.project_id != self._access.project_id:
                raise RefusalError("DIS.4117")
            call = Call(request, route.arguments, rules, self._store, int(now.timestamp() * 1000))
            return route.handler(call)
        except (RefusalError, wire.MalformedRequestError) as error:
            return refusal(status_of(error.code), error.code, str(error))
        except tuple(_CODES) as error:
            code = _CODES[type(error)]
            return refusal(status_of(code), code, message_of(code))
        except OSError as error:  # the file that keeps the records: no operation does any other I/O
            return refusal(500, "DIS.5000", f"{message_of('DIS.5000')} {error}")


# What the store and its consumers cannot do, in DIS's codes.
_CODES: Mapping[type[Exception], str] = {
    UnknownStreamError: "DIS.4301",
    UnknownPartitionError: "DIS.4302",
    ExpiredRecordError: "DIS.4226",
    AppExistsError: "DIS.4330",
    UnknownAppError: "DIS.4332",
}


class _Route(NamedTuple):
    operation: Operation
    project_id: str
    arguments: Mapping[str, str]
    handler: Callable[[Call], Response]


# Method, resource below /v2/{project_id}/, operation, handler.
_ROUTES: tuple[tuple[str, re.Pattern[str], Operation, Callable[[Call], Response]], ...] = tuple(
    (method, re.compile(resource), operation, handler)
    for method, resource, operation, handler in (
        ("POST", r"records", Operation.PUT_RECORDS, uploads.put_records),
        ("GET", r"records", Operation.GET_RECORDS, cursors.get_records),
        ("GET", r"cursors", Operation.GET_CURSOR, cursors.show_cursor),
        ("POST", r"streams", Operation.CREATE_STREAM, management.create_stream),
        ("GET", r"streams", Operation.LIST_STREAMS, management.list_streams),
        ("GET", r"streams/(?P<stream_name>[^/]+)", Operation.DESCRIBE_STREAM, management.describe_stream),
        ("DELETE", r"streams/(?P<stream_name>[^/]+)", Operation.DELETE_STREAM, management.delete_stream),
        ("POST", r"apps", Operation.CREATE_APP, checkpoints.create_app),
        ("GET", r"apps", Operation.LIST_APPS, checkpoints.list_apps),
        ("GET", r"apps/(?P<app_name>[^/]+)", Operation.DESCRIBE_APP, checkpoints.describe_app),
        ("DELETE", r"apps/(?P<app_name>[^/]+)", Operation.DELETE_APP, checkpoints.delete_app),
        ("POST", r"checkpoints", Operation.COMMIT_CHECKPOINT, checkpoints.commit_checkpoint),
        ("GET", r"checkpoints", Operation.GET_CHECKPOINT, checkpoints.show_checkpoint),
        ("DELETE", r"checkpoints", Operation.DELETE_CHECKPOINT, checkpoints.delete_checkpoint),
    )
)


def _route(head: Head) -> _Route | None:
    path = _PATH.fullmatch(head.path)
    if path is None:
        return None
    for method, resource, operation, handler in _ROUTES:
        match = resource.fullmatch(path["resource"])
        if match is not None and method == head.method:
            return _Route(operation, path["project"], match.groupdict(), handler)
    return None
