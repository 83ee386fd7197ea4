"""Django with sessions in the process's memory; the id changes at login, as django.contrib.auth has it."""

import sys

import django
from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpResponse, JsonResponse
from django.urls import path

port, instance = sys.argv[1:3]
settings.configure(
    DEBUG=True,
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="the same everywhere",
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    SESSION_ENGINE="django.contrib.sessions.backends.cache",
    SESSION_COOKIE_SECURE=True,
    CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache",
                        "OPTIONS": {"MAX_ENTRIES": 100_000}}},
)


def health(request):
    return HttpResponse("ok")


def form(request):
    """The page with the form begins an anonymous session."""
    request.session["seen"] = True
    return JsonResponse({"instance": instance})


def login(request):
    request.session.cycle_key()
    request.session.update({"user": request.POST["user"], "count": 0})
    return JsonResponse({"instance": instance, "user": request.session["user"]})


def visit(request):
    if "user" in request.session:
        request.session["count"] += 1
    return JsonResponse({"instance": instance, "user": request.session.get("user"), "count": request.session.get("count")})


urlpatterns = [path("health", health), path("form", form), path("login", login), path("visit", visit)]
django.setup()
execute_from_command_line(["manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"])
