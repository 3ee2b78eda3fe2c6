"""
Django's command line, for this project. Without an account it has a local DIS, and prints in the end what arrived there.

    python examples/django_project/manage.py runserver
"""

import logging
import os
import sys
from pathlib import Path

from django.core.management import execute_from_command_line

sys.path.append(str(Path(__file__).resolve().parents[1]))
from local_dis import local_dis_without_account

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
    with local_dis_without_account("web-logs") as dis:
        try:
            execute_from_command_line(sys.argv)
        finally:
            logging.shutdown()  # sends what still waits while the local DIS is there
            for record in dis.records("web-logs") if dis else ():
                print(f"{record.partition_id} {record.sequence_number}: {record.text}")
