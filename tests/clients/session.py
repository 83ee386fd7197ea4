"""A session through `requests`, as a script would hold one."""

import io
import os
import sys

import requests

base, authority = sys.argv[1:]


def check(is_so, *what):
    if not is_so:
        sys.exit("session.py: " + " ".join(map(repr, what)))


def same(answer, text):
    check(answer.status_code == 200 and answer.text == text, answer.status_code, answer.text, text)
    check(answer.headers["x-backend"] == home, answer.headers, home)


with requests.Session() as session:
    # Else what the environment says of authorities comes first.
    session.trust_env = False
    session.verify = authority
    answer = session.get(base + "/login?ada")
    check(answer.text == "ada", answer.text)
    home = answer.headers["x-backend"]
    for _ in range(20):
        same(session.get(base + "/whoami"), "ada")

    # A connection of its own each time.
    for _ in range(10):
        same(session.get(base + "/whoami", headers={"Connection": "close"}), "ada")

    same(session.post(base + "/upload", data=b"x" * 1_000_000), "ada 1000000")
    same(session.put(base + "/upload", data=io.BytesIO(b"")), "ada 0")
    # A generator has no length: chunked.
    same(session.post(base + "/upload", data=(b"piece" for _ in range(1000))), "ada 5000")
    # A form, whose length is the library's to say.
    answer = session.post(base + "/upload", files={"file": ("a.bin", os.urandom(10_000))})
    same(answer, f"ada {answer.request.headers['content-length']}")

    head = session.head(base + "/whoami")
    check(head.text == "" and head.headers["content-length"] == "3", head.headers)
    check(head.headers["x-backend"] == home, head.headers)

    with session.get(base + "/whoami", stream=True) as answer:
        check(b"".join(answer.iter_content(1)) == b"ada")

    # Somebody else's cookies do not lead there.
    answer = requests.get(base + "/whoami", verify=authority)
    check(answer.status_code == 401, answer.status_code)

print(home)
