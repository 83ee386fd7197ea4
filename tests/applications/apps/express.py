"""express with express-session, and socket.io (polling, then WebSocket) that shares the session."""

import json
import queue
import subprocess
import threading
from pathlib import Path

import install
from application import Application, Browser, Lost, Unserved, User, WebUser

SERVERS = Path(__file__).resolve().parents[1] / "servers/express"


class Sockets:
    """The process of socket.io's own client: commands and answers are lines of JSON."""

    def __init__(self, started, homing, folder, node):
        self.process = started.start(
            ["node", SERVERS / "client.js", f"https://localhost:{homing.port}"], folder / "sockets.log",
            env={"NODE_PATH": str(node / "node_modules"), "NODE_EXTRA_CA_CERTS": str(homing.folder / "cert.pem")},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.waiting, self.lock, self.next = {}, threading.Lock(), 0
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.child.stdout:
            answer = json.loads(line)
            self.waiting.pop(answer["id"]).put(answer)

    def ask(self, **command):
        answer = queue.Queue()
        with self.lock:
            self.next += 1
            self.waiting[self.next] = answer
            line = json.dumps({"id": self.next, **command}) + "\n"
            self.process.child.stdin.write(line.encode())
            self.process.child.stdin.flush()
        try:
            found = answer.get(timeout=30)
        except queue.Empty:
            raise Unserved(f"socket.io: no answer to {command['do']}") from None
        if "error" in found:
            raise Unserved(f"socket.io: {found['error']}")
        return found


class ExpressUser(WebUser):
    def __init__(self, homing, number, sockets, transports):
        super().__init__(homing, number)
        self.sockets, self.transports, self.open = sockets, transports, False

    def use(self):
        super().use()
        if not self.open:
            cookie = self.browser.cookie_header("/socket.io/")
            self.sockets.ask(do="open", user=self.name, cookie=cookie, transports=self.transports)
            self.open = True
        try:
            page = self.sockets.ask(do="visit", user=self.name)
        except Unserved:
            # socket.io does not send again what was under way when a connection was cut; its user does.
            self.unsure += 1
            page = self.sockets.ask(do="visit", user=self.name)
        if not self.transports == ["polling"] and page["transport"] != "websocket":
            raise Lost(f"socket.io stays with {page['transport']}")
        self.check(page)

    def leave(self):
        if self.open:
            self.open = False
            self.sockets.ask(do="close", user=self.name)
        super().leave()


class PlainUser(User):
    """Only socket.io, without a login; the page has brought the cookie that homing issues."""

    def __init__(self, homing, number, sockets, transports):
        super().__init__(homing, number)
        self.browser, self.sockets, self.transports = Browser(homing), sockets, transports

    def login(self):
        self.browser.page("/page")
        cookie = self.browser.cookie_header("/socket.io/")
        self.sockets.ask(do="open", user=self.name, cookie=cookie, transports=self.transports, plain=True)
        page = self.sockets.ask(do="visit", user=self.name)
        self.instance, self.count = page["instance"], page["count"]

    def use(self):
        try:
            self.check(self.sockets.ask(do="visit", user=self.name))
        except Unserved:
            self.unsure += 1
            self.check(self.sockets.ask(do="visit", user=self.name))

    def leave(self):
        self.sockets.ask(do="close", user=self.name)
        self.browser.close()


class App(Application):
    name, title = "express", "express + socket.io"
    affinity = 'key = "cookie:connect.sid"'
    streams = True

    def install(self):
        self.node = install.node("express", "express@5", "express-session@1", "socket.io@4", "socket.io-client@4")

    def start(self, started, instance, port, folder):
        return started.start(["node", SERVERS / "server.js", port, instance], folder / "log",
                             env={"NODE_PATH": str(self.node / "node_modules")})

    def prepare(self, started, homing, folder):
        self.sockets = Sockets(started, homing, folder, self.node)

    def user(self, homing, number):
        # Every third one is behind a proxy that lets no WebSocket through.
        transports = ["polling"] if number % 3 == 0 else ["polling", "websocket"]
        return ExpressUser(homing, number, self.sockets, transports)


class Plain(App):
    name, title = "socketio", "socket.io, issued cookie"
    affinity = 'issue = { cookie = "__Host-homing", key_file = "issue.keys" }'
    outlives_windows = False

    def user(self, homing, number):
        transports = ["polling"] if number % 3 == 0 else ["polling", "websocket"]
        return PlainUser(homing, number, self.sockets, transports)


APPS = (App, Plain)
