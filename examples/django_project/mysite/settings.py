"""Settings of a Django project whose errors and application records go to DIS: see LOGGING."""

import os
from pathlib import Path

from django.core.management.utils import get_random_secret_key

BASE_DIR = Path(__file__).resolve().parent.parent

SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY") or get_random_secret_key()
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "testserver"]
INSTALLED_APPS = ["shop"]
ROOT_URLCONF = "mysite.urls"
TIME_ZONE = "UTC"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"},
        "undelivered": {"format": "%(dis_error_code)s (%(dis_error_message)s) %(message)s"},
    },
    "handlers": {
        "dis": {
            "class": "dis_logging.DISHandler",
            "stream_name": os.environ.get("DIS_LOGGING_STREAM_NAME", "web-logs"),
            "formatter": "line",
            "fallback": "undelivered",
        },
        "undelivered": {
            "class": "logging.FileHandler",
            "filename": BASE_DIR / "undelivered.log",
            "encoding": "utf-8",
            "delay": True,
            "formatter": "undelivered",
        },
    },
    "loggers": {
        "django.request": {"handlers": ["dis"], "level": "WARNING"},
        "shop": {"handlers": ["dis"], "level": "INFO"},
    },
}
