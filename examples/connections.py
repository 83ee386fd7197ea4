#!/usr/bin/env python3
"""What a client connection costs in memory: examples/connections.py target/release/homing [connections]

Starts the program with a backend of its own, lets clients do one thing each, and prints how much more memory is
resident per connection. Python's standard library and the openssl command are all it needs; all of it happens on
127.0.0.1.
"""

import multiprocessing
import os
import re
import resource
import selectors
import socket
import ssl
import subprocess
import sys
import tempfile
import time

CONFIG = """
workers = 1
access_log = false
[listen]
https = "127.0.0.1:0"
admin = "127.0.0.1:0"
[timeouts]
head = "5m"
body = "10m"
idle = "10m"
[limits]
connections_per_address = "unlimited"
[[certificate]]
cert = "{directory}/cert.pem"
key = "{directory}/key.pem"
[[pool]]
name = "app"
[pool.affinity]
key = "cookie:session"
session_timeout = "30m"
[pool.timeouts]
connect = "60s"
[[pool.backend]]
name = "app-1"
url = "http://127.0.0.1:{backend}"
"""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SMALL = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def backend(listener):
    """Answers a GET with as many bytes as its path says; takes the head of anything else, and nothing more."""
    chooser = selectors.DefaultSelector()
    listener.setblocking(False)
    chooser.register(listener, selectors.EVENT_READ)
    waiting = {}
    while True:
        for key, events in chooser.select():
            connection = key.fileobj
            if connection is listener:
                connection, _ = listener.accept()
                connection.setblocking(False)
                chooser.register(connection, selectors.EVENT_READ)
                continue
            try:
                if events & selectors.EVENT_READ:
                    got = connection.recv(4096)
                    if not got:
                        raise ConnectionError
                    if not got.startswith(b"GET "):
                        # Its client's body stays where it is.
                        chooser.unregister(connection)
                        waiting[connection] = 0
                        continue
                    length = int(got.split(b" ", 2)[1][1:] or 2)
                    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length)
                    waiting[connection] = length
                left = waiting.get(connection, 0)
                while left:
                    left -= connection.send(b"x" * min(left, 65536))
                    waiting[connection] = left
                chooser.modify(connection, selectors.EVENT_READ)
            except BlockingIOError:
                chooser.modify(connection, selectors.EVENT_WRITE)
            except OSError:
                chooser.unregister(connection)
                connection.close()


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def head(path, method=b"GET"):
    """Every field in plain (RFC 7541 §6.2.2)."""
    fields = [(b":method", method), (b":scheme", b"https"), (b":path", path), (b":authority", b"localhost")]
    return b"".join(b"\0%c%b%c%b" % (len(name), name, len(value), value) for name, value in fields)


def get(stream, path=b"/"):
    return frame(1, 5, stream, head(path))


def opened(window=65535):
    """The beginning of a connection; `window` is that of each stream and of the whole."""
    start = PREFACE + frame(4, 0, 0, b"\0\4" + window.to_bytes(4, "big"))
    return start + frame(8, 0, 0, (window - 65535).to_bytes(4, "big")) if window > 65535 else start


def h2_upload(connection):
    """Sends for as long as there is a window for it; the kernel on the way to the backend holds some of it."""
    connection.sendall(opened() + frame(1, 4, 1, head(b"/", b"POST")))
    connection.settimeout(0.2)
    windows, got = {0: 65535, 1: 65535}, b""
    while True:
        try:
            got += connection.recv(65536)
        except TimeoutError:
            return
        while len(got) >= 9 and len(got) >= 9 + int.from_bytes(got[:3], "big"):
            length, kind, flags = int.from_bytes(got[:3], "big"), got[3], got[4]
            stream = int.from_bytes(got[5:9], "big")
            payload, got = got[9 : 9 + length], got[9 + length :]
            if kind == 4 and not flags & 1:
                # From here on, not before, the window is what was announced.
                connection.sendall(frame(4, 1, 0))
                for at in range(0, length, 6):
                    if payload[at : at + 2] == b"\0\4":
                        windows[1] += int.from_bytes(payload[at + 2 : at + 6], "big") - 65535
            if kind == 8:
                windows[stream] += int.from_bytes(payload, "big")
        while (room := min(windows.values(), default=0)) > 0:
            part = frame(0, 0, 1, b"x" * min(room, 16384))
            for stream in windows:
                windows[stream] -= len(part) - 9
            connection.sendall(part)


def h2_small_frames(connection):
    """Frames as small as h2 lets them be, towards a backend that cannot be connected to."""
    connection.sendall(opened() + frame(1, 4, 1, head(b"/", b"POST")))
    connection.recv(65536)
    connection.sendall(frame(4, 1, 0))
    time.sleep(0.05)
    connection.sendall(frame(0, 0, 1, b"x" * 200) * (262144 // 200))


h2_small_frames.deaf = True


def h1_upload(connection):
    """Sends until nothing is taken for a moment."""
    connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n")
    connection.settimeout(0.2)
    try:
        while True:
            connection.sendall(b"x" * 65536)
    except TimeoutError:
        return


def asked(request):
    def ask(connection):
        connection.sendall(request)
        connection.recv(65536)

    return ask


def says(request):
    return lambda connection: connection.sendall(request)


def waits(request):
    """For a backend that cannot be connected to."""

    def wait(connection):
        connection.sendall(request)

    wait.deaf = True
    return wait


def filled(stream):
    """A head of 60 fields of 1,000 bytes, in as many frames as it takes."""
    block = head(b"/") + b"".join(b"\0\3x%02d\x7f\xe9\6" % n + b"x" * 1000 for n in range(60))
    frames = frame(1, 1, stream, block[:16000])
    for at in range(16000, len(block), 16000):
        frames += frame(9, 4 if at + 16000 >= len(block) else 0, stream, block[at : at + 16000])
    return frames


BIG = b"/100000000"
FILLED = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Filler: " + b"x" * 60000
# What is done, over which protocol, how many connections do it at most, and how.
CASES = [
    ("HTTP/1.1, idle from the start", "http/1.1", 5000, lambda connection: None),
    ("HTTP/1.1, idle after a request", "http/1.1", 5000, asked(SMALL)),
    ("HTTP/1.1, a head of some bytes that does not end", "http/1.1", 2000, says(SMALL[:-2] + b"X-A: b\r\n")),
    ("HTTP/1.1, a head of 60 KB that does not end", "http/1.1", 500, says(FILLED)),
    ("HTTP/1.1, a request of 60 KB that waits for a backend", "http/1.1", 200, waits(FILLED + b"\r\n\r\n")),
    ("HTTP/1.1, a body that does not go on", "http/1.1", 500, says(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx")),
    ("HTTP/1.1, a body that the backend does not take", "http/1.1", 100, h1_upload),
    ("HTTP/1.1, an answer that is not read", "http/1.1", 200, says(SMALL.replace(b"/ ", BIG + b" ", 1))),
    ("HTTP/2, idle from the start", "h2", 5000, says(opened())),
    ("HTTP/2, idle after a request", "h2", 5000, asked(opened() + get(1))),
    ("HTTP/2, a head that does not end", "h2", 500, says(opened() + frame(1, 1, 1, b"\0\1a" + b"\x7f\xe1\x79" + b"x" * 15000))),
    ("HTTP/2, a request of 60 KB that waits for a backend", "h2", 200, waits(opened() + filled(1))),
    ("HTTP/2, 20 requests of 60 KB that wait for a backend", "h2", 20, waits(opened() + b"".join(map(filled, range(1, 40, 2))))),
    ("HTTP/2, a body that does not go on", "h2", 500, says(opened() + frame(1, 4, 1, head(b"/", b"POST")) + frame(0, 0, 1, b"x"))),
    ("HTTP/2, a body that the backend does not take", "h2", 100, h2_upload),
    ("HTTP/2, a body in frames of 200 bytes that nobody takes", "h2", 100, h2_small_frames),
    ("HTTP/2, an answer that is not read", "h2", 200, says(opened(2**31 - 1) + get(1, BIG))),
    ("HTTP/2, an answer without a window for it", "h2", 200, says(opened(0) + get(1, BIG))),
    ("HTTP/2, 100 answers that are not read", "h2", 10, says(opened(2**31 - 1) + b"".join(get(n, BIG) for n in range(1, 200, 2)))),
]


class Program:
    def __init__(self, program, directory, port):
        with open(f"{directory}/homing.toml", "w") as file:
            file.write(CONFIG.format(directory=directory, backend=port))
        command = [program, "serve", "--config", f"{directory}/homing.toml"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        self.port = None
        for line in self.process.stderr:
            if found := re.match(r"listening https .*:(\d+)", line):
                self.port = int(found[1])
            if line.startswith("listening admin"):
                break
        time.sleep(0.5)

    def resident(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1]) * 1024

    def cpu(self):
        with open(f"/proc/{self.process.pid}/stat") as stat:
            return sum(map(int, stat.read().rsplit(")")[1].split()[11:13])) / os.sysconf("SC_CLK_TCK")

    def connect(self, protocol):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols([protocol])
        tcp = socket.create_connection(("127.0.0.1", self.port), 10)
        return context.wrap_socket(tcp, server_hostname="localhost")

    def end(self):
        self.process.kill()
        self.process.wait()


def settled(program):
    """Resident memory when it has stopped growing."""
    last = program.resident()
    for _ in range(20):
        time.sleep(0.5)
        now = program.resident()
        if abs(now - last) < 65536:
            break
        last = now
    return now


def deaf():
    """A port that takes no connection: its queue is full."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    queue = [socket.socket() for _ in range(3)]
    for waiting in queue:
        waiting.setblocking(False)
        waiting.connect_ex(listener.getsockname())
    return listener, queue


def main():
    program, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 2000
    only = sys.argv[3] if len(sys.argv) > 3 else ""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    multiprocessing.Process(target=backend, args=[listener], daemon=True).start()
    for what, protocol, most, act in CASES:
        if only not in what:
            continue
        with tempfile.TemporaryDirectory() as directory:
            make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost"
            files = ["-addext", "subjectAltName=DNS:localhost", "-keyout", f"{directory}/key.pem", "-out", f"{directory}/cert.pem"]
            subprocess.run(make.split() + files, check=True, stderr=subprocess.DEVNULL)
            nobody = deaf() if hasattr(act, "deaf") else None
            run = Program(program, directory, (nobody or [listener])[0].getsockname()[1])
            try:
                for warm_up in [run.connect(protocol) for _ in range(0 if nobody else 3)]:
                    asked(SMALL if protocol != "h2" else opened() + get(1))(warm_up)
                    warm_up.close()
                before = settled(run)
                connections = []
                for _ in range(min(count, most)):
                    connection = run.connect(protocol)
                    act(connection)
                    connections.append(connection)
                after = settled(run)
                cpu, began = run.cpu(), time.monotonic()
                time.sleep(3)
                cpu = (run.cpu() - cpu) / (time.monotonic() - began)
                each = (after - before) / len(connections) / 1024
                print(f"{what:50} {len(connections):5} {each:8.1f} KiB each, {cpu:.1%} of a core meanwhile", flush=True)
            finally:
                run.end()


if __name__ == "__main__":
    main()
