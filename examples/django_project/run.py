"""
Sends a few requests through Django's test client and prints what arrived in DIS.

    python examples/django_project/run.py
"""

import logging
import os
import sys
from pathlib import Path

import django
from django.test import Client

sys.path.append(str(Path(__file__).resolve().parents[1]))
from local_dis import local_dis_without_account

STREAM = os.environ.get("DIS_LOGGING_STREAM_NAME", "web-logs")


def visit() -> None:
    """Sends requests that end well, with 404 and with 500."""
    client = Client(raise_request_exception=False)
    for path in ("/orders/1001/", "/no-such-page/", "/broken/"):
        print(f"GET {path} -> {client.get(path).status_code}")


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
    with local_dis_without_account(STREAM) as dis:
        django.setup()
        visit()
        logging.shutdown()
        for record in dis.records(STREAM) if dis else ():
            print(f"{record.partition_id} {record.sequence_number}: {record.text}")
