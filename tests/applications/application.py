"""What an application and a user of it have to do for the phases."""

import random

from browser import Browser, Lost, Unserved
from processes import Failed


class Application:
    """One application: how three instances of it are started, and how it is used."""

    name = ""
    # What the documentation tells the operator to write under [pool.affinity].
    affinity = ""
    # What tells that an instance serves.
    health = "/health"
    # Whether its users hold streams open, which a take-over leaves to the process before.
    streams = False
    # Whether the state is still there when a user comes back after closing the window.
    outlives_windows = True
    # Users who are there at once, at most: some clients are whole browsers.
    most_users = 1000

    def install(self):
        """Installs what it needs."""

    def start(self, started, instance, port, folder):
        """Starts the instance on 127.0.0.1:port; returns the process."""
        raise NotImplementedError

    def prepare(self, started, homing, folder):
        """Starts what the clients need."""

    def user(self, homing, number):
        raise NotImplementedError


class User:
    """A user with state in one instance. `use` raises Lost where that is gone."""

    def __init__(self, homing, number):
        self.homing, self.number, self.name = homing, number, f"user-{number}"
        self.instance = None
        self.count = 0
        # Requests of which the user does not know whether they were counted.
        self.unsure = 0
        self.random = random.Random(number)

    def login(self):
        raise NotImplementedError

    def use(self):
        raise NotImplementedError

    def places(self):
        """The instances that have state of this user."""
        return {self.instance}

    def leave(self):
        """Closes what is open, and keeps cookies."""

    def close(self):
        self.leave()

    def check(self, page):
        """Holds a page, {"instance", "user", "count"}, against what the user knows."""
        if page.get("user") != self.name:
            raise Lost(f"{page.get('instance')} knows {page.get('user')!r}, home is {self.instance}")
        if page["instance"] != self.instance:
            raise Lost(f"served by {page['instance']}, home is {self.instance}")
        if not self.count < page["count"] <= self.count + 1 + self.unsure:
            raise Lost(f"counter is {page['count']}, not {self.count + 1}")
        self.count, self.unsure = page["count"], 0


class WebUser(User):
    """A user of pages: POST /login, then /visit counts in the session. Every third visit opens a new connection."""

    cookies = True
    login_path, visit_path = "/login", "/visit"

    def __init__(self, homing, number):
        super().__init__(homing, number)
        self.browser = Browser(homing, self.cookies)

    def login(self):
        self.count = 0
        page = self.browser.page(self.login_path, "POST", {"user": self.name}).json()
        self.instance = page["instance"]
        if page["user"] != self.name:
            raise Lost(f"logged in as {page['user']!r}")

    def use(self):
        if self.random.random() < 0.3:
            self.browser.close()
        response = self.browser.page(self.visit_path)
        if response.status != 200:
            raise Lost(f"{response.status} {response.text[:80]!r}, home is {self.instance}")
        self.check(response.json())

    def leave(self):
        self.browser.close()


__all__ = ["Application", "Browser", "Failed", "Lost", "Unserved", "User", "WebUser"]
