"""MCP over streamable HTTP: the session is named by the field Mcp-Session-Id, there are no cookies."""

import json

import install
from application import Lost, WebUser
from apps import web


class Client(WebUser):
    cookies = False
    session = None

    def call(self, method, params, number=1):
        fields = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream",
                  "MCP-Protocol-Version": "2025-06-18"}
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
        self.call("initialize", {"protocolVersion": "2025-06-18", "capabilities": {},
                                 "clientInfo": {"name": self.name, "version": "1"}})
        self.call("notifications/initialized", {}, number=None)
        self.instance = self.tool("login", user=self.name)["instance"]

    def use(self):
        if self.random.random() < 0.3:
            self.browser.close()
        self.check(self.tool("visit"))


class App(web._Python):
    name, title = "mcp", "MCP, streamable HTTP"
    affinity = 'key = "header:Mcp-Session-Id"'
    packages = ("mcp==2.3.*",)
    script = "mcp_server.py"

    def user(self, homing, number):
        return Client(homing, number)


APPS = (App,)
