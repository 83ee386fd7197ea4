"""Shiny for Python: each page has a session of its own, over a WebSocket."""

import json
import os
import urllib.parse

from shiny import App, reactive, render, ui
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route


def server(input, output, session):
    count = reactive.value(0)

    @reactive.effect
    @reactive.event(input.press)
    def _():
        count.set(count() + 1)

    @render.text
    def state():
        query = urllib.parse.parse_qs(session.clientdata.url_search().lstrip("?"))
        return json.dumps({"instance": os.environ["INSTANCE"], "user": query["user"][0], "count": count()})


page = App(ui.page_fluid(ui.input_action_button("press", "count"), ui.output_text("state")), server)
app = Starlette(routes=[Route("/health", lambda request: PlainTextResponse("ok")), Mount("/", page)])
