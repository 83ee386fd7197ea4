"""The proxies with configurations that ask the same of each. bench/README.md says why they are as they are."""

import http.client
import re
import socket
import ssl
import subprocess
import time
from pathlib import Path

from loads import session
from processes import Failed, Process, Tool

NGINX = """\
daemon off;
worker_processes {workers};
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000000;
    upstream app {{
        hash $cookie_session consistent;
{backends}
        keepalive 1024;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} ssl http2 backlog=4096;
        server_name bench.test;
        ssl_certificate {folder}/cert.pem;
        ssl_certificate_key {folder}/key.pem;
        ssl_protocols TLSv1.3;
        client_max_body_size 0;
        location / {{
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_request_buffering off;
            proxy_max_temp_file_size 0;
        }}
    }}
}}
"""

HAPROXY = """\
global
    nbthread {workers}
    maxconn 8000
    ssl-default-bind-options ssl-min-ver TLSv1.3
defaults
    mode http
    timeout connect 5s
    timeout client 75s
    timeout server 75s
    timeout http-keep-alive 75s
    timeout http-request 15s
    option forwardfor
frontend front
    bind 127.0.0.1:{port} backlog 4096 ssl crt {folder}/both.pem alpn h2,http/1.1
    http-request set-header X-Forwarded-Proto https
    default_backend app
backend app
    balance roundrobin
    stick-table type string len 64 size 2m expire 45m
    stick on req.cook(session)
    stick store-response res.cook(session)
{backends}
"""

HOMING = """\
workers = {workers}
[listen]
https = "127.0.0.1:{port}"
admin = "127.0.0.1:0"
[limits]
connections = 8000
connections_per_address = "unlimited"
requests_per_connection = "unlimited"
[[certificate]]
cert = "{folder}/cert.pem"
key = "{folder}/key.pem"
[[pool]]
name = "app"
keep_alive = 1024
[pool.affinity]
key = "cookie:session"
session_timeout = "30m"
max_sessions = 2_000_000
{backends}
"""

FORMS = {
    "nginx": (NGINX, "nginx.conf", "        server 127.0.0.1:{port};"),
    "HAProxy": (HAPROXY, "haproxy.cfg", "    server app-{number} 127.0.0.1:{port}"),
    "homing": (HOMING, "homing.toml", '[[pool.backend]]\nname = "app-{number}"\nurl = "http://127.0.0.1:{port}"'),
}
# Bytes of each path's answer.
LENGTHS = {"/1k": 1024, "/64k": 64 * 1024, "/1m": 1024 * 1024}


class Proxy(Process):
    """A proxy that serves. `kind` is one of FORMS; `name` is what it is called in tables."""

    def __init__(self, kind, program, bench, ports, name=None, workers=1, cpus=None):
        self.kind = kind
        self.folder = bench.folder(name or kind)
        self.port = free_port()
        form, file, backend = FORMS[kind]
        lines = [backend.format(number=number, port=port) for number, port in enumerate(ports)]
        config = self.folder / file
        # nginx's workers are another user.
        config.write_text(form.format(folder=self.folder, port=self.port, workers=workers, backends="\n".join(lines)))
        for name_of_file in ("cert.pem", "key.pem", "both.pem"):
            target = self.folder / name_of_file
            if not target.exists():
                target.symlink_to(bench.temporary / name_of_file)
        command = {
            "nginx": [program, "-p", self.folder, "-c", config],
            "HAProxy": [program, "-db", "-f", config],
            "homing": [program, "serve", "--config", config],
        }[kind]
        super().__init__(command, cpus or bench.proxy_cpus, self.folder / "log")
        self.name = name or kind
        self.address = ("127.0.0.1", self.port)

    def wait(self):
        """Until it answers."""
        deadline = time.monotonic() + 15
        while True:
            try:
                request(self.port, "/1k")
                return
            except (OSError, http.client.HTTPException, Failed) as error:
                if not self.alive() or time.monotonic() > deadline:
                    raise Failed(f"{self.name} does not serve ({error}):\n{self.messages()}") from None
                time.sleep(0.05)

    def check(self, bench):
        """One answer of each size, and sessions that stay with the backend that began them."""
        for path, length in LENGTHS.items():
            body, _ = request(self.port, path)
            if len(body) != length:
                raise Failed(f"{self.name}: {path} has {len(body)} bytes instead of {length}")
        for number in range(5):
            cookie = session(bench.UNUSED + number)
            _, home = request(self.port, f"/login?id={cookie}", {"Cookie": f"session={cookie}"} if self.kind == "nginx" else {})
            for _ in range(4):
                _, backend = request(self.port, "/1k", {"Cookie": f"session={cookie}"})
                if backend != home:
                    raise Failed(f"{self.name}: a session of backend {home} was sent to {backend}")


    def known(self):
        """How many sessions homing says it knows."""
        admin = re.search(r"listening admin http://127\.0\.0\.1:(\d+)", self.log.read_text())
        connection = http.client.HTTPConnection("127.0.0.1", int(admin[1]), timeout=10)
        try:
            connection.request("GET", "/metrics")
            metrics = connection.getresponse().read().decode()
        finally:
            connection.close()
        return sum(int(count) for count in re.findall(r"^homing_sessions{.*} (\d+)$", metrics, re.M))


class Relay(Tool):
    """The kernel floor."""

    def __init__(self, bench, port):
        super().__init__(bench.tool, ["relay", "--to", f"127.0.0.1:{port}"], bench.proxy_cpus, bench.folder("floor") / "log")
        self.kind = self.name = "floor"
        self.port = self.said["port"]


def request(port, path, fields=None):
    """The body of an answer, and which backend it is of."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=context)
    try:
        connection.request("GET", path, headers={"Host": "bench.test", **(fields or {})})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise Failed(f"{path} was answered {answer.status}")
        return body, answer.headers["X-Backend"]
    finally:
        connection.close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def make_certificate(folder):
    """A P-256 key that signed itself, for all proxies alike."""
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=bench.test"
    files = ["-addext", "subjectAltName=DNS:bench.test", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    done = subprocess.run([*command.split(), *map(str, files)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"openssl: {done.stderr}")
    both = Path(folder / "both.pem")
    both.write_text((folder / "cert.pem").read_text() + (folder / "key.pem").read_text())
    both.chmod(0o600)


def version(program, kind):
    """What a program says it is."""
    command = {"nginx": ["-V"], "HAProxy": ["-vv"], "homing": ["--version"]}[kind]
    done = subprocess.run([program, *command], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    number = re.search(r"(\d+\.\d+[\w.+~-]*)", said)
    library = re.search(r"(?:built with|Running on) (OpenSSL [\d.]+)|Running on OpenSSL version : (OpenSSL [\d.]+)", said)
    return (number[1] if number else "?") + (f" ({library[1] or library[2]})" if library else "")
