"""Django configures logging, twice if it is told so, with records pending and on their way."""

from collections import Counter

from dis_logging.emulator import DISEmulator
from dis_logging.emulator.faults import Hang
from tests.process.programs import Programs, numbered

SETTINGS = """
    import logging, os
    from application import OPTIONS

    SECRET_KEY = "for tests"
    ALLOWED_HOSTS = ["*"]
    ROOT_URLCONF = "urls"
    USE_TZ = True
    LOGGING = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {
            "dis": {"class": "dis_logging.DISHandler", **OPTIONS, "fallback": "cfg://handlers.file"},
            "file": {"class": "application.FileFallback"},
        },
        "loggers": {
            "shop": {"level": "INFO", "handlers": ["dis"], "propagate": False},
            "django.request": {"level": "WARNING", "handlers": ["dis"], "propagate": False},
        },
    }
    """
URLS = """
    import logging
    from django.http import HttpResponse
    from django.urls import path

    def view(request):
        logging.getLogger("shop").info("view %s", request.GET["number"])
        return HttpResponse("done")

    urlpatterns = [path("view", view)]
    """
PROGRAM = """
    import logging, os
    os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
    import django
    django.setup()
    from django.test import Client
    shop = logging.getLogger("shop")
    client = Client()
    for number in range(5):
        client.get("/view", {"number": str(number)})
    client.get("/nowhere")
    """


def _write_project(programs: Programs) -> None:
    programs.write("settings.py", SETTINGS)
    programs.write("urls.py", URLS)


def test_django_configures_twice_with_records_pending(programs: Programs) -> None:
    _write_project(programs)

    ended = programs.run(PROGRAM + "django.setup(); shop.info('after')\n", flush_interval=60)

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == numbered("view", 5) + Counter(["Not Found: /nowhere", "after"])
    assert not ended.reported


def test_django_configures_twice_with_a_batch_in_flight(dis: DISEmulator, programs: Programs) -> None:
    _write_project(programs)
    dis.play(Hang(0.3))

    program = programs.start(
        PROGRAM
        + """
    input()
    django.setup()
    shop.info("after")
        """,
        flush_interval=0,
    )
    assert dis.wait_for(lambda dis: any(request.entries for request in dis.requests))
    program.go_on()
    ended = program.wait()

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == numbered("view", 5) + Counter(["Not Found: /nowhere", "after"])
    assert not ended.reported
