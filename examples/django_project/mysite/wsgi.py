"""
What a WSGI server loads.

    python examples/with_local_dis.py web-logs gunicorn --workers 2 --chdir examples/django_project mysite.wsgi
"""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
application = get_wsgi_application()
