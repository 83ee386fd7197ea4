"""Applications whose pages keep a WebSocket or a stream open, and set no cookie: homing issues one."""

from pathlib import Path

import install
from application import Application
from chromium import Chromium, PageUser

SERVERS = Path(__file__).resolve().parents[1] / "servers"


class _Pages(Application):
    affinity = 'issue = { cookie = "__Host-homing", key_file = "issue.keys" }'
    streams = True
    most_users = 6
    # A page that is closed ends its session.
    outlives_windows = False
    packages = ()

    def install(self):
        self.python = install.python(self.name, *self.packages)

    def start(self, started, instance, port, folder):
        return started.start(self.command(instance, port), folder / "log", cwd=folder,
                             env={"INSTANCE": instance, "HOME": str(folder), "GRADIO_ANALYTICS_ENABLED": "False"})

    def command(self, instance, port):
        return [self.python, "-B", SERVERS / f"{self.name}_app.py", port, instance]

    def prepare(self, started, homing, folder):
        self.chromium = Chromium(started, folder)

    def user(self, homing, number):
        return PageUser(homing, number, self.chromium)


class Streamlit(_Pages):
    name, title = "streamlit", "Streamlit"
    packages = ("streamlit==1.67.*",)
    health = "/_stcore/health"

    def command(self, instance, port):
        return [self.python, "-m", "streamlit", "run", SERVERS / "streamlit_app.py", "--server.port", port,
                "--server.address", "127.0.0.1", "--server.headless", "true", "--server.fileWatcherType", "none",
                "--browser.gatherUsageStats", "false"]


class Shiny(_Pages):
    name, title = "shiny", "Shiny for Python"
    packages = ("shiny==1.8.*",)

    def command(self, instance, port):
        return [self.python, "-B", "-m", "shiny", "run", "--host", "127.0.0.1", "--port", port, "--app-dir", SERVERS,
                "shiny_app:app"]


class Panel(_Pages):
    name, title = "panel", "Panel"
    packages = ("panel==1.9.*",)
    health = "/liveness"


class Gradio(_Pages):
    name, title = "gradio", "Gradio"
    packages = ("gradio==6.31.*",)
    health = "/"


APPS = (Streamlit, Shiny, Panel, Gradio)
