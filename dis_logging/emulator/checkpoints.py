"""Apps and their checkpoints (API reference, App Management and Checkpoint Management)."""

from __future__ import annotations

import json
import re

from dis_logging.client import wire
from dis_logging.emulator.call import Call, decimal, partition_number
from dis_logging.emulator.consumers import Checkpoint, ConsumerApp, Position
from dis_logging.emulator.cursors import check_in_range
from dis_logging.emulator.messages import RefusalError, Response

# API reference, Creating an App.
_APP_NAME = re.compile(r"[A-Za-z0-9_-]{1,200}")
# API reference, Querying the App List: limit.
_DEFAULT_APP_LIMIT = 10
_MAX_APP_LIMIT = 100
# API reference, Committing a Checkpoint.
_MAX_METADATA_LENGTH = 1000
_CHECKPOINT_TYPE = "LAST_READ"

# The Flink connector of the DIS SDKs takes "-1" for "no checkpoint", the Java consumer any negative number.
_NO_CHECKPOINT = Checkpoint(-1, "")


def create_app(call: Call) -> Response:
    """Adds an app."""
    name = wire.text_field(call.fields(), "app_name")
    if not _APP_NAME.fullmatch(name):
        raise RefusalError("DIS.4200", "Invalid request. Invalid app_name.")
    call.store.consumers.create_app(name, call.now)
    return Response.empty(201)


def delete_app(call: Call) -> Response:
    """Removes an app and its checkpoints."""
    call.store.consumers.delete_app(call.arguments["app_name"])
    return Response.empty(204)


def describe_app(call: Call) -> Response:
    """Answers with one app."""
    app = call.store.consumers.app(call.arguments["app_name"])
    return Response(200, json.dumps(_description(call, app)).encode())


def list_apps(call: Call) -> Response:
    """Answers with the apps, or those with checkpoints on one stream, by name and page by page."""
    apps = sorted(call.store.consumers.apps())
    if call.query("stream_name"):
        stream_id = call.store.describe(call.query("stream_name")).stream_id
        apps = [app for app in apps if stream_id in call.store.consumers.stream_ids(app.name)]
    limit = call.query_count("limit", _DEFAULT_APP_LIMIT, _MAX_APP_LIMIT)
    after = [app for app in apps if app.name > call.query("start_app_name")]
    document = {
        "has_more_app": len(after) > limit,
        "total_number": len(apps),
        "apps": [_description(call, app) for app in after[:limit]],
    }
    return Response(200, json.dumps(document).encode())


def commit_checkpoint(call: Call) -> Response:
    """Notes how far an app has read a partition."""
    fields = call.fields()
    _check_type(wire.text_field(fields, "checkpoint_type"))
    number = decimal(wire.text_field(fields, "sequence_number"))
    if number is None:
        raise RefusalError("DIS.4216")
    metadata = wire.text_field(fields, "metadata")
    if len(metadata) > _MAX_METADATA_LENGTH:
        raise RefusalError("DIS.4200", f"Invalid request. metadata is longer than {_MAX_METADATA_LENGTH} characters.")
    app = call.store.consumers.app(wire.text_field(fields, "app_name"))
    wanted = partition_number(wire.text_field(fields, "partition_id"))
    partition = call.store.partition(
        wire.text_field(fields, "stream_name"), wire.text_field(fields, "stream_id"), wanted
    )
    # The next number too: consumers of the Kafka kind commit the one that they want to begin with.
    check_in_range(number, partition, last=partition.next)
    position = Position(app.name, partition.stream_id, partition.number)
    call.store.consumers.commit(position, Checkpoint(number, metadata))
    return Response.empty(201)


def show_checkpoint(call: Call) -> Response:
    """Answers with how far an app has read a partition."""
    _check_type(call.query("checkpoint_type"))
    app = call.store.consumers.app(call.query("app_name"))
    wanted = partition_number(call.query("partition_id"))
    partition = call.store.partition(call.query("stream_name"), call.query("stream_id"), wanted)
    position = Position(app.name, partition.stream_id, partition.number)
    found = call.store.consumers.checkpoint(position) or _NO_CHECKPOINT
    document = {"sequence_number": str(found.sequence_number), "metadata": found.metadata}
    return Response(200, json.dumps(document).encode())


def delete_checkpoint(call: Call) -> Response:
    """Removes the checkpoints of an app on a stream: of all partitions, or of one."""
    _check_type(call.query("checkpoint_type") or _CHECKPOINT_TYPE)
    stream = call.store.describe(call.query("stream_name"), call.query("stream_id"))
    identifier = call.query("partition_id")
    partition = partition_number(identifier) if identifier else None
    call.store.consumers.delete_checkpoints(call.query("app_name"), stream.stream_id, partition)
    return Response.empty(204)


def _check_type(value: str) -> None:
    if value != _CHECKPOINT_TYPE:
        raise RefusalError("DIS.4200", f"Invalid request. checkpoint_type must be {_CHECKPOINT_TYPE}.")


def _description(call: Call, app: ConsumerApp) -> dict[str, object]:
    read = call.store.consumers.stream_ids(app.name)
    return {
        "app_name": app.name,
        "app_id": app.app_id,
        "create_time": app.created,
        "commit_checkpoint_stream_names": [each.name for each in call.store.streams() if each.stream_id in read],
    }
