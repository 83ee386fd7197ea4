"""A client as browsers are: keeps cookies by name, domain and path, and connections open."""

import http.client
import http.cookiejar
import json
import socket
import ssl
import urllib.parse
import urllib.request

import websockets.sync.client


class Lost(Exception):
    """The application no longer knows the user, or has another state than the user left."""


class Unserved(Exception):
    """A request got no answer of the application."""


class Response:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def text(self):
        return self.body.decode(errors="replace")

    def json(self):
        try:
            return json.loads(self.body)
        except ValueError:
            raise Lost(f"answer {self.status} is not JSON: {self.text[:80]!r}") from None


class _Connection(http.client.HTTPSConnection):
    """To the name `localhost`, at 127.0.0.1."""

    def connect(self):
        self.sock = self._context.wrap_socket(
            socket.create_connection(("127.0.0.1", self.port), self.timeout), server_hostname="localhost")


class Browser:
    def __init__(self, homing, cookies=True):
        self.homing = homing
        self.origin = f"https://localhost:{homing.port}"
        self.jar = http.cookiejar.CookieJar() if cookies else None
        self.connection = None

    def close(self):
        if self.connection:
            self.connection.close()
            self.connection = None

    def cookie_header(self, path):
        """What the browser would send as Cookie to `path`."""
        request = urllib.request.Request(self.origin + path)
        if self.jar is not None:
            self.jar.add_cookie_header(request)
        return request.get_header("Cookie")

    def cookie(self, name):
        return next((cookie.value for cookie in self.jar if cookie.name == name), None)

    def send(self, method, path, body=None, headers=None, stream=False):
        """One request. On a connection that the server closed meanwhile it is sent again over a new one, as browsers do."""
        fields = {"Accept": "*/*", **(headers or {})}
        cookie = self.cookie_header(path)
        if cookie:
            fields["Cookie"] = cookie
        if isinstance(body, dict):
            fields.setdefault("Content-Type", "application/x-www-form-urlencoded")
            body = urllib.parse.urlencode(body)
        for reused in ((True, False) if self.connection else (False,)):
            if not reused:
                self.close()
                self.connection = _Connection("localhost", self.homing.port, timeout=30, context=self.homing.tls)
            try:
                self.connection.request(method, path, body, fields)
                response = self.connection.getresponse()
                break
            except (ConnectionError, http.client.BadStatusLine, ssl.SSLError, OSError) as error:
                self.close()
                if not reused:
                    raise Unserved(f"{method} {path}: {error!r}") from None
        if self.jar is not None:
            self.jar.extract_cookies(response, urllib.request.Request(self.origin + path))
        if stream:
            return response
        try:
            data = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Unserved(f"{method} {path}: {error!r}") from None
        if response.will_close:
            self.close()
        return Response(response.status, response.headers, data)

    def get(self, path, **options):
        return self.send("GET", path, **options)

    def post(self, path, body=None, **options):
        return self.send("POST", path, body if body is not None else {}, **options)

    def page(self, path, method="GET", body=None):
        """As `send`, but follows redirects, and refuses what is no page of the application."""
        for _ in range(5):
            response = self.send(method, path, body)
            if response.status in (301, 302, 303, 307, 308):
                target = urllib.parse.urlsplit(urllib.parse.urljoin(self.origin + path, response.headers["Location"]))
                path, method, body = target.path + (f"?{target.query}" if target.query else ""), "GET", None
                continue
            if response.status in (429, 502, 503, 504):
                raise Unserved(f"{method} {path}: {response.status} {response.text[:80]!r}")
            return response
        raise Lost(f"redirected again and again, to {path}")

    def websocket(self, path, subprotocols=None):
        headers = {}
        cookie = self.cookie_header(path)
        if cookie:
            headers["Cookie"] = cookie
        try:
            return websockets.sync.client.connect(
                f"wss://localhost:{self.homing.port}{path}",
                sock=socket.create_connection(("127.0.0.1", self.homing.port), 10),
                ssl=self.homing.tls, server_hostname="localhost", additional_headers=headers, origin=self.origin,
                subprotocols=subprotocols, open_timeout=30, close_timeout=1, proxy=None, max_size=None)
        except (OSError, websockets.exceptions.WebSocketException, TimeoutError, EOFError) as error:
            raise Unserved(f"WebSocket {path}: {error!r}") from None
