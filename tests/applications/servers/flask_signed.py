"""Flask as it comes: the session is in the cookie, signed, so its value is another one after each visit. What the
user works on is too large for that and stays in the process's memory."""

import sys

import flask
import werkzeug.serving

port, instance = int(sys.argv[1]), sys.argv[2]
app = flask.Flask(__name__)
app.config.update(SECRET_KEY="the same everywhere")
work = {}


@app.get("/health")
def health():
    return "ok"


@app.post("/login")
def login():
    flask.session.update(user=flask.request.form["user"], count=0)
    work[flask.session["user"]] = 0
    return {"instance": instance, "user": flask.session["user"]}


@app.get("/visit")
def visit():
    user = flask.session.get("user")
    if user in work:
        work[user] += 1
        flask.session["count"] = work[user]
    return {"instance": instance, "user": user if user in work else None, "count": work.get(user)}


@app.get("/part")
def part():
    """One of several parts of a page: it changes the cookie, but counts nothing."""
    user = flask.session.get("user")
    flask.session["part"] = flask.request.args["number"]
    return {"instance": instance, "user": user if user in work else None}


werkzeug.serving.WSGIRequestHandler.protocol_version = "HTTP/1.1"
app.run("127.0.0.1", port, threaded=True)
