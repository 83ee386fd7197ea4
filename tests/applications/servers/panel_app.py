"""Panel: each page has a session of its own, over a WebSocket."""

import json
import sys

import panel as pn

port, instance = int(sys.argv[1]), sys.argv[2]


def app():
    user = pn.state.session_args.get("user", [b""])[0].decode()
    count = 0

    def text():
        return json.dumps({"instance": instance, "user": user, "count": count})

    def press(_):
        nonlocal count
        count += 1
        shown.object = text()

    button = pn.widgets.Button(name="count")
    button.on_click(press)
    shown = pn.pane.Str(text())
    return pn.Column(button, shown)


pn.serve(app, port=port, address="127.0.0.1", websocket_origin="*", liveness=True, show=False)
