"""A server of the Model Context Protocol over streamable HTTP: each session has state in memory."""

import sys

from mcp.server.mcpserver import Context, MCPServer
from starlette.responses import PlainTextResponse

port, instance = int(sys.argv[1]), sys.argv[2]
server = MCPServer("counter")
states = {}


@server.custom_route("/health", methods=["GET"])
async def health(request):
    return PlainTextResponse("ok")


@server.tool()
def login(user: str, context: Context) -> dict:
    states[context.headers["mcp-session-id"]] = {"user": user, "count": 0}
    return {"instance": instance, "user": user, "count": 0}


@server.tool()
def visit(context: Context) -> dict:
    state = states.get(context.headers["mcp-session-id"])
    if not state:
        return {"instance": instance, "user": None, "count": None}
    state["count"] += 1
    return {"instance": instance, **state}


server.run("streamable-http", host="127.0.0.1", port=port)
