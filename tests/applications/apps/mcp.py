"""MCP over streamable HTTP: the session is named by the field Mcp-Session-Id, there are no cookies."""

import contextlib
import http.client
import json
import socket
import threading

import install
from application import Browser, Lost, WebUser
from apps import web

VERSION = "2025-06-18"


class Client(WebUser):
    cookies = False
    session = None

    def __init__(self, homing, number):
        super().__init__(homing, number)
        self.listener, self.stream = Browser(homing, cookies=False), None

    def listen(self):
        """Opens the stream of what the server says unasked, again if it was cut, as clients do."""
        if self.stream and self.stream.is_alive():
            return
        fields = {"Accept": "text/event-stream", "Mcp-Session-Id": self.session, "MCP-Protocol-Version": VERSION}
        self.listener.close()
        response = self.listener.send("GET", "/mcp", headers=fields, stream=True)
        if response.status != 200:
            raise Lost(f"the stream: {response.status}, home is {self.instance}")
        self.listener.connection.sock.settimeout(None)
        self.stream = threading.Thread(target=self.drink, args=(response,), daemon=True)
        self.stream.start()

    def drink(self, response):
        try:
            while response.readline():
                pass
        except (OSError, ValueError, AttributeError, http.client.HTTPException):
            pass

    def call(self, method, params, number=1):
        fields = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream",
                  "MCP-Protocol-Version": VERSION}
        if self.session:
            fields["Mcp-Session-Id"] = self.session
        message = {"jsonrpc": "2.0", "method": method, "params": params}
        if number:
            message["id"] = number
        answer = self.browser.send("POST", "/mcp", json.dumps(message), fields)
        if answer.status not in (200, 202):
            raise Lost(f"{method}: {answer.status} {answer.text[:120]!r}, home is {self.instance}")
        self.session = answer.headers.get("Mcp-Session-Id", self.session)
        lines = [line[5:] for line in answer.text.splitlines() if line.startswith("data:") and line[5:].strip()]
        return json.loads(lines[-1]) if lines else None

    def tool(self, name, **arguments):
        result = self.call("tools/call", {"name": name, "arguments": arguments})["result"]
        return json.loads(result["content"][0]["text"])

    def login(self):
        self.count, self.session = 0, None
        self.call("initialize", {"protocolVersion": VERSION, "capabilities": {},
                                 "clientInfo": {"name": self.name, "version": "1"}})
        self.call("notifications/initialized", {}, number=None)
        self.instance = self.tool("login", user=self.name)["instance"]

    def use(self):
        if self.random.random() < 0.3:
            self.browser.close()
        self.check(self.tool("visit"))
        self.listen()

    def leave(self):
        if self.listener.connection and self.listener.connection.sock:
            with contextlib.suppress(OSError):
                self.listener.connection.sock.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        super().leave()


class App(web._Python):
    name, title = "mcp", "MCP, streamable HTTP"
    affinity = 'key = "header:Mcp-Session-Id"'
    packages = ("mcp==2.3.*",)
    script = "mcp_server.py"
    streams = True

    def user(self, homing, number):
        return Client(homing, number)


APPS = (App,)
