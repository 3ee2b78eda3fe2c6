"""
Django's command line, for this project.

    python examples/django_project/manage.py runserver
"""

import os
import sys
from pathlib import Path

from django.core.management import execute_from_command_line

sys.path.append(str(Path(__file__).resolve().parents[1]))
from local_dis import local_dis_without_account

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
    with local_dis_without_account("web-logs"):
        execute_from_command_line(sys.argv)
