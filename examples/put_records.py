"""
Uploads three records, as the page "Uploading Streaming Data" of the DIS documentation does.

    python examples/put_records.py
"""

import os
import sys

from local_dis import local_dis_without_account

from dis_logging import DISClient, PutRecordsRequestEntry

STREAM = os.environ.get("DIS_LOGGING_STREAM_NAME", "dis-demo")


def put_records(stream_name: str) -> int:
    """Uploads the records, prints what became of each, and returns how many failed."""
    records = [
        PutRecordsRequestEntry(data=f"shardId-{number:011d}", explicit_hash_key="123", partition_key="1")
        for number in range(3)
    ]
    with DISClient() as client:
        result = client.put_records(stream_name, records)
    for entry in result.records:
        print(entry)
    print(f"failed record count: {result.failed_record_count}")
    return result.failed_record_count


if __name__ == "__main__":
    with local_dis_without_account(STREAM):
        sys.exit(1 if put_records(STREAM) else 0)
