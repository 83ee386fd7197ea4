"""The life of a proxy in phases, and who keeps their session in each."""

import concurrent.futures
import http.client
import signal
import threading
import time
import traceback
import urllib.request

from application import Lost, Unserved
from homing import DRAIN, SESSION_TIMEOUT, Homing
from processes import Failed, free_port, wait_until

PHASES = ("login", "use", "reload", "take-over", "drain", "kill")
# People read a page before they open the next; longer than a proxy could think of requests that were under way.
PAUSE = 11
# Seconds for one application, once it is installed.
LONGEST = 600
INSTANCES = ("app-1", "app-2", "app-3")


class Run:
    """One application through all phases. `cells` has the table's row, `faults` what must not be."""

    def __init__(self, application, started, folder, users):
        self.application, self.started, self.folder = application, started, folder
        self.wanted = min(users, application.most_users)
        self.cells, self.faults = {}, []
        self.users, self.servers = [], {}

    def go(self):
        try:
            self.application.install()
            signal.alarm(LONGEST)
            self.set_up()
            for phase in PHASES:
                self.phase = phase
                getattr(self, phase.replace("-", "_"))()
        except Failed as failed:
            self.fault(str(failed))
        finally:
            for user in self.users:
                try:
                    user.close()
                except Exception:  # the run is over, whatever a client still says
                    pass

    def fault(self, text):
        self.faults.append(f"{getattr(self, 'phase', 'start')}: {text}")

    def set_up(self):
        application = self.application
        self.homing = Homing(self.started, self.folder)
        self.ports = {name: free_port() for name in INSTANCES}
        application.port = self.homing.port
        for name, port in self.ports.items():
            folder = self.folder / name
            folder.mkdir()
            self.servers[name] = application.start(self.started, name, port, folder)
        for name, port in self.ports.items():
            wait_until(lambda: self.healthy(name, port), 120, f"{name} ({self.servers[name].log})")
        affinity = application.affinity
        self.homing.configure(affinity() if callable(affinity) else affinity, application.health, self.ports)
        self.homing.start()
        wait_until(lambda: all(backend["up"] for backend in self.homing.status()["pools"][0]["backends"]), 20, "backends")
        application.prepare(self.started, self.homing, self.folder)

    def healthy(self, name, port):
        if not self.servers[name].running():
            raise Failed(f"{name} has ended, see {self.servers[name].log}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{self.application.health}", timeout=5) as response:
                return response.status < 400
        except (OSError, http.client.HTTPException):
            return False

    # Users

    def each(self, users, action):
        """Does `action` with all users at once; returns what went wrong, by user."""
        def one(user):
            try:
                action(user)
                return None
            except (Lost, Unserved, Failed) as wrong:
                return wrong
            except Exception as wrong:
                return Failed("".join(traceback.format_exception(wrong)[-3:]))
        with concurrent.futures.ThreadPoolExecutor(max_workers=32) as threads:
            results = list(threads.map(one, users))
        return {user: wrong for user, wrong in zip(users, results) if wrong}

    def during(self, users, action):
        """Runs `action` while all users go on using the application; returns what went wrong, by user."""
        over, wrong = threading.Event(), {}

        def go_on(user):
            while not over.is_set() and user not in wrong:
                try:
                    user.use()
                except (Lost, Unserved) as error:
                    wrong[user] = error
                    return
                except Exception as error:
                    wrong[user] = Failed("".join(traceback.format_exception(error)[-3:]))
                    return
                over.wait(0.1 + user.random.random() * 0.5)

        threads = [threading.Thread(target=go_on, args=(user,)) for user in users]
        for thread in threads:
            thread.start()
        try:
            action()
        finally:
            over.set()
            for thread in threads:
                thread.join()
        return wrong

    def report(self, users, wrong):
        """Writes the cell, and gives those who lost their state a new session, so that they count once."""
        self.cells[self.phase] = f"{len(users) - len(wrong)}/{len(users)}"
        for user, error in wrong.items():
            self.fault(f"{user.name} at {user.instance}: {error}")
        failed = self.each(list(wrong), self.again)
        for user, error in failed.items():
            self.fault(f"{user.name} cannot begin again: {error}")
            self.users.remove(user)

    def again(self, user):
        deadline = time.monotonic() + 15
        while True:
            try:
                user.close()
                user.unsure = 0
                user.login()
                user.use()
                return
            except (Lost, Unserved):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.3)

    def at(self, instance):
        return [user for user in self.users if instance in user.places()]

    def busiest(self, *but):
        return max((name for name in INSTANCES if name not in but), key=lambda name: len(self.at(name)))

    # Phases

    def login(self):
        users = [self.application.user(self.homing, number) for number in range(self.wanted)]
        wrong = self.each(users, lambda user: user.login())
        self.cells[self.phase] = f"{len(users) - len(wrong)}/{len(users)}"
        for user, error in wrong.items():
            self.fault(f"{user.name}: {error}")
            user.close()
        self.users = [user for user in users if user not in wrong]
        if not self.users:
            raise Failed("no user could log in")
        spread = [len(self.at(name)) for name in INSTANCES]
        if len(self.users) >= 6 and 0 in spread:
            self.fault(f"an instance has no user: {spread}")

    def use(self):
        wrong = {}
        for pause in (0, 0, PAUSE):
            time.sleep(pause)
            wrong.update(self.each([user for user in self.users if user not in wrong], lambda user: user.use()))
        self.report(list(self.users), wrong)

    def reload(self):
        def action():
            for _ in range(3):
                self.homing.reload()
                time.sleep(0.5)
        users = list(self.users)
        self.report(users, self.during(users, action))

    def take_over(self):
        def action():
            before = self.homing.take_over()
            # Past the moment at which the process before cuts what is left to it.
            time.sleep(DRAIN + 4)
            if not self.application.streams and before.running():
                self.fault("the process before still runs")
        users = list(self.users)
        wrong = self.during(users, action)
        wrong.update(self.each([user for user in users if user not in wrong], lambda user: user.use()))
        self.report(users, wrong)

    def drain(self):
        name = self.drained = self.busiest()
        users = list(self.users)
        newcomers = [self.application.user(self.homing, 1000 + number) for number in range(min(6, self.wanted // 2))]

        def action():
            code, text = self.homing.operate("drain", name)
            if code:
                self.fault(f"homing drain: {code} {text.strip()}")
            for user, error in self.each(newcomers, lambda user: user.login()).items():
                self.fault(f"newcomer {user.name}: {error}")
            time.sleep(1)
            # While users are there, it is not drained.
            code, text = self.homing.operate("drain", name, "--wait", "--timeout", "2s")
            if code != 3:
                self.fault(f"drain --wait with {len(self.at(name))} users: exit code {code}, not 3: {text.strip()[-200:]}")

        wrong = self.during(users, action)
        astray = [user.name for user in newcomers if name in user.places()]
        if astray:
            self.fault(f"{len(astray)} of {len(newcomers)} newcomers began at {name}, which drains")
        for user in newcomers:
            user.close()
        # Its users close their windows; the others go on.
        leaving = [user for user in self.at(name) if user not in wrong]
        for user in leaving:
            user.leave()

        def wait():
            code, text = self.homing.operate("drain", name, "--wait", "--timeout", f"{SESSION_TIMEOUT + 15}s")
            if code:
                self.fault(f"{name} is not drained {SESSION_TIMEOUT + 15} s after its users left: {text.strip()[-200:]}")

        staying = [user for user in users if user not in wrong and user not in leaving]
        wrong.update(self.during(staying, wait))
        self.homing.operate("undrain", name)
        # Who comes back finds what was left, unless closing the window has ended it.
        if self.application.outlives_windows:
            wrong.update(self.each(leaving, lambda user: user.use()))
            self.report(users, wrong)
        else:
            self.report(users, wrong)
            for user, error in self.each(leaving, self.again).items():
                self.fault(f"{user.name} does not come back: {error}")
                self.users.remove(user)

    def kill(self):
        name = self.busiest(self.drained)
        victims = self.at(name)
        others = [user for user in self.users if user not in victims]

        def action():
            self.servers[name].kill()
            time.sleep(2)
            failed = self.each(victims, self.again)
            for user, error in failed.items():
                self.fault(f"{user.name} cannot begin elsewhere: {error}")
            self.back = len(victims) - len(failed)

        self.back = 0
        wrong = self.during(others, action)
        wrong.update(self.each([user for user in self.users if user not in wrong and user not in victims],
                               lambda user: user.use()))
        stay = [user.name for user in victims if name in user.places()]
        if stay:
            self.fault(f"{stay} are said to be at {name}, which is dead")
        self.cells[self.phase] = f"{len(others) - len(wrong)}/{len(others)}, {self.back}/{len(victims)} anew"
        for user, error in wrong.items():
            self.fault(f"{user.name} at {user.instance}: {error}")
