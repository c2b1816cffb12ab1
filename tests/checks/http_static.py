#!/usr/bin/env python3
"""examples/http-static-server: what curl and plain sockets see of it, and its end under load.
"""

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

BUILD = os.environ.get("TRAM_BUILD_DIR", "build/release")
SERVER = os.path.join(BUILD, "examples", "http-static-server")
PATIENCE = 60
BIG = b"".join(b"%d\n" % i for i in range(100000))

failures = []


def check(condition, text):
    if not condition:
        failures.append(text)
        print("FAILED:", text, file=sys.stderr)


class Server:
    def __init__(self, root):
        self.process = subprocess.Popen([SERVER, "--port", "0", "--workers", "2", "--root", root],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        match = re.fullmatch(r"listening on 127\.0\.0\.1:(\d+)\n", line)
        check(match, f"the first line: {line!r}")
        self.port = int(match[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=PATIENCE)
        check(self.process.returncode == 0, f"the server ended with {self.process.returncode}: {errors}")
        check("aborted" not in errors, errors)


def curl(*arguments):
    return subprocess.run(["curl", "-s", "-m", str(PATIENCE), *arguments], stdout=subprocess.PIPE, check=False).stdout


def status(*arguments):
    return int(curl("-o", "/dev/null", "-w", "%{http_code}", *arguments))


def test_what_curl_sees(server):
    url = server.url
    check(curl(f"{url}/") == b"index\n", "the index")
    check(curl(f"{url}/big.txt") == BIG, "a large file")
    check(curl("-r", "10-19", f"{url}/big.txt") == BIG[10:20], "a range")
    check(curl("-r", "-7", f"{url}/big.txt") == BIG[-7:], "the last bytes")
    check(curl("-r", "500000-", f"{url}/big.txt") == BIG[500000:], "a range to the end")
    head = curl("-I", f"{url}/big.txt")
    check(b"Content-Length: %d\r\n" % len(BIG) in head, f"HEAD: {head}")
    etag = re.search(rb"ETag: (\S+)", head)[1].decode()
    modified = re.search(rb"Last-Modified: (.*)\r", head)[1].decode()
    check(curl("-H", 'If-Range: "x"', "-r", "0-1", f"{url}/big.txt") == BIG, "a range of another version")
    check(curl("-H", f"If-Range: {etag}", "-r", "0-1", f"{url}/big.txt") == BIG[:2], "a range of this version")
    for wanted, arguments in (
        (304, ["-H", f"If-None-Match: {etag}"]), (200, ["-H", 'If-None-Match: "x"']),
        (304, ["-H", f"If-Modified-Since: {modified}"]), (416, ["-r", "99999999-"]), (206, ["-r", "0-0"]),
        (405, ["-X", "POST", "-d", "abc"]), (431, ["-H", "X: " + "a" * 20000]),
        (413, ["-H", "Expect:", "-H", "Content-Length: 99999999", "-X", "POST", "-d", "abc"]),
        (501, ["-H", "Transfer-Encoding: chunked", "-d", "abc"])):
        got = status(*arguments, f"{url}/big.txt")
        check(got == wanted, f"{arguments[:2]}: {got} and not {wanted}")
    for wanted, path in (404, "/nothing"), (404, "/sub"), (400, "/../x"), (400, "/%2e%2e/x"), (400, "/a%00"), (400, "/%zz"):
        got = status("--path-as-is", url + path)
        check(got == wanted, f"{path}: {got} and not {wanted}")


def exchange(server, *requests):
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
        for request in requests:
            client.sendall(request)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    return answer


def test_what_sockets_see(server):
    get = b"GET %s HTTP/1.1\r\nHost: a\r\n%s\r\n"
    answer = exchange(server, get % (b"/", b"") + get % (b"/big.txt", b"") + get % (b"/", b"Connection: close\r\n"))
    check(answer.count(b"HTTP/1.1 200 OK\r\n") == 3 and BIG in answer and answer.endswith(b"index\n"), "pipelined")
    post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
    answer = exchange(server, post, get % (b"/", b"Connection: close\r\n"))
    check(b" 405 " in answer and b" 200 " in answer, "the body of a refused request is skipped")
    check(b" 400 " in exchange(server, b"GET / HTTP/1.1\r\n\r\n"), "no host")
    check(b" 400 " in exchange(server, b"nonsense\r\n\r\n"), "nonsense")
    check(b" 200 " in exchange(server, *[bytes([b]) for b in get % (b"/", b"Connection: close\r\n")]), "byte by byte")
    check(b" 200 " in exchange(server, b"GET / HTTP/1.0\r\n\r\n"), "HTTP/1.0")


async def request(reader, writer, path):
    """An answer, and whether another may follow; None: the end came in place of it."""
    try:
        writer.write(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path)
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        return None if not getattr(error, "partial", b"") else b"cut", False
    body = await reader.readexactly(int(re.search(rb"Content-Length: (\d+)", head)[1]))
    return body, b"Connection: close" not in head


async def client(server, path, body, counts):
    while not counts["ended"]:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        except ConnectionError:
            return
        goes_on = True
        while goes_on:
            answer, goes_on = await request(reader, writer, path)
            if answer is None:
                counts["end"] += 1 # between two requests: the idle connection was closed
            else:
                check(answer == body, f"{len(answer)} bytes of {path}")
                counts["answers"] += 1
        writer.close()


async def end_under_load(server):
    counts = {"answers": 0, "end": 0, "ended": False}
    tasks = [asyncio.create_task(client(server, *what, counts)) for _ in range(20)
             for what in ((b"/", b"index\n"), (b"/big.txt", BIG))]
    while counts["answers"] < 200:
        await asyncio.sleep(0.01)
    await asyncio.to_thread(server.end)
    counts["ended"] = True
    await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)
    print(f"{counts['answers']} answers, {counts['end']} ends of idle connections")


# rules: G-1, G-2, G-3
def test_an_end_under_load_cuts_no_answer(server):
    asyncio.run(end_under_load(server))


def test_who_is_slow_holds_nobody_up(server):
    """slowhttptest: heads, bodies and readers that take their time. With TRAM_TEST_FULL until the server ends the heads,
    after 10 s."""
    if not shutil.which("slowhttptest"):
        print("skipped: no slowhttptest here")
        return
    full = bool(os.environ.get("TRAM_TEST_FULL"))
    kinds = {"heads": ["-H", "-l", "20" if full else "3"], "bodies": ["-B", "-l", "3"], "readers": ["-X", "-l", "3"]}
    slow = {kind: subprocess.Popen(["slowhttptest", *how, "-c", "100", "-r", "100", "-i", "1", "-p", "3", "-u",
                                    f"{server.url}/big.txt"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for kind, how in kinds.items()}
    for kind, process in slow.items():
        while process.poll() is None:
            check(curl(f"{server.url}/big.txt") == BIG, f"a download while others have slow {kind}")
            time.sleep(0.2)
        said = re.sub(r"\x1b\[[\d;]*m", "", process.stdout.read())
        check("service available:   YES" in said and "service available:   NO" not in said, f"slow {kind}: {said}")
        check(not full or kind != "heads" or "No open connections left" in said, f"the server ends slow heads: {said}")


def test_help():
    run = subprocess.run([SERVER, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    check(run.returncode == 0 and run.stdout.startswith("usage: ") and not run.stderr, f"--help: {run}")


with tempfile.TemporaryDirectory() as folder:
    os.mkdir(os.path.join(folder, "sub"))
    for name, content in ("index.html", b"index\n"), ("big.txt", BIG):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(content)
    test_help()
    started = Server(folder)
    try:
        test_what_curl_sees(started)
        test_what_sockets_see(started)
        test_who_is_slow_holds_nobody_up(started)
        test_an_end_under_load_cuts_no_answer(started)
    finally:
        started.process.kill()
sys.exit(1 if failures else 0)
