"""Applications of pages and forms: Flask, Django, PHP."""

import concurrent.futures
from pathlib import Path

import install
from application import Application, Browser, Lost, WebUser

SERVERS = Path(__file__).resolve().parents[1] / "servers"


class FormUser(WebUser):
    """Sees the page with the form, which begins a session, and then logs in."""

    form_path = "/form"

    def login(self):
        self.browser.page(self.form_path)
        super().login()


class PartsUser(WebUser):
    """Each page has parts that are asked for at the same time; each part's answer sets the cookie anew."""

    parts = 12

    def use(self):
        super().use()
        with concurrent.futures.ThreadPoolExecutor(self.parts) as threads:
            for page in threads.map(self.part, range(self.parts)):
                if page["user"] != self.name or page["instance"] != self.instance:
                    raise Lost(f"a part: {page['instance']} knows {page['user']!r}, home is {self.instance}")

    def part(self, number):
        browser = Browser(self.homing)
        browser.jar = self.browser.jar
        try:
            return browser.page(f"/part?number={number}").json()
        finally:
            browser.close()


class _Python(Application):
    packages = ()
    script = ""

    def install(self):
        self.python = install.python(self.name.split("-")[0], *self.packages)

    def start(self, started, instance, port, folder):
        return started.start([self.python, "-B", SERVERS / self.script, port, instance], folder / "log", cwd=folder)

    def user(self, homing, number):
        return WebUser(homing, number)


class Flask(_Python):
    name, title = "flask", "Flask, sessions in memory"
    affinity = 'key = "cookie:session"'
    packages = ("flask==3.1.*", "flask-session==0.8.*", "cachelib==0.17.*")
    script = "flask_memory.py"


class FlaskSigned(Flask):
    name, title = "flask-signed", "Flask, signed cookies"
    script = "flask_signed.py"

    def user(self, homing, number):
        return PartsUser(homing, number)


class Django(_Python):
    name, title = "django", "Django, locmem sessions"
    affinity = 'key = "cookie:sessionid"'
    packages = ("django==5.2.*",)
    script = "django_memory.py"

    def user(self, homing, number):
        return FormUser(homing, number)


class Php(Application):
    name, title = "php", "PHP, sessions in files"
    affinity = 'key = "cookie:PHPSESSID"'

    def install(self):
        self.php = install.program("php", "php-cli")

    def start(self, started, instance, port, folder):
        (folder / "sessions").mkdir()
        return started.start(
            [self.php, "-d", f"session.save_path={folder}/sessions", "-S", f"127.0.0.1:{port}", SERVERS / "php/index.php"],
            folder / "log", env={"INSTANCE": instance, "PHP_CLI_SERVER_WORKERS": "3"})

    def user(self, homing, number):
        return FormUser(homing, number)


APPS = (Flask, FlaskSigned, Django, Php)
