"""Flask with Flask-Session: sessions in the process's memory, a cookie `session` that names them."""

import sys

import cachelib
import flask
import flask_session
import werkzeug.serving

port, instance = int(sys.argv[1]), sys.argv[2]
app = flask.Flask(__name__)
app.config.update(SECRET_KEY="the same everywhere", SESSION_TYPE="cachelib", SESSION_PERMANENT=False,
                  SESSION_CACHELIB=cachelib.SimpleCache(threshold=100_000))
flask_session.Session(app)


@app.get("/health")
def health():
    return "ok"


@app.post("/login")
def login():
    flask.session.clear()
    app.session_interface.regenerate(flask.session)
    flask.session.update(user=flask.request.form["user"], count=0)
    return {"instance": instance, "user": flask.session["user"]}


@app.get("/visit")
def visit():
    if "user" in flask.session:
        flask.session["count"] += 1
    return {"instance": instance, "user": flask.session.get("user"), "count": flask.session.get("count")}


werkzeug.serving.WSGIRequestHandler.protocol_version = "HTTP/1.1"
app.run("127.0.0.1", port, threaded=True)
