#!/usr/bin/env python3
"""examples/key-value-server as redis-cli and a client of plain bytes see it, with one worker and with three."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

BUILD = os.environ.get("TRAM_BUILD_DIR", "build/release")
SERVER = os.path.join(BUILD, "examples", "key-value-server")
failures = []

# What one types, and what redis-server 7 answers.
SESSION = r'''
PING|PONG
PING hello|hello
ECHO "two words"|two words
SET a 1|OK
GET a|1
GET none|
SET a 2 NX|
SET b 2 XX|
SET b 2 NX|OK
SET a 3 XX|OK
MGET a b none|3;2;
MSET k1 v1 k2 v2 k3 v3 k4 v4 k5 v5|OK
MSET k1 v1 k2|ERR wrong number of arguments for 'mset' command
MGET k5 k4 k3 k2 k1|v5;v4;v3;v2;v1
EXISTS k1 k2 k3 none k1|4
DEL k1 k2 none|2
DBSIZE|5
INCR n|1
INCR n|2
DECR n|1
SET text x|OK
INCR text|ERR value is not an integer or out of range
SET big 9223372036854775807|OK
INCR big|ERR increment or decrement would overflow
SET e 1 EX 100000|OK
TTL e|100000
TTL a|-1
TTL none|-2
EXPIRE a 50000|1
TTL a|50000
EXPIRE none 50|0
EXPIRE a 0|1
EXISTS a|0
SET e 1 EX 0|ERR invalid expire time in 'set' command
SET e 1 EX x|ERR value is not an integer or out of range
SET e 1 FOO|ERR syntax error
SET e 1 NX XX|ERR syntax error
get|ERR wrong number of arguments for 'get' command
foo bar|ERR unknown command 'foo'
FLUSHALL|OK
DBSIZE|0
'''


def check(condition, text):
    if not condition:
        failures.append(text)
        print(f"FAILED: {text}")


def start(workers):
    server = subprocess.Popen([SERVER, "--port", "0", "--workers", str(workers)], stdout=subprocess.PIPE, text=True)
    line = server.stdout.readline()
    check(line.startswith("listening on 127.0.0.1:"), f"the first line is {line!r}")
    return server, int(line.rsplit(":", 1)[1])


def stop(server):
    server.send_signal(signal.SIGTERM)
    check(server.wait(30) == 0, f"the server ended with {server.returncode}")


# rules: E-11
def test_redis_cli_session(port):
    for line in SESSION.strip().splitlines():
        command, expected = line.rsplit("|", 1)
        answer = subprocess.run(["redis-cli", "-p", str(port)], input=command + "\n", text=True, timeout=30,
                                capture_output=True).stdout
        answer = ";".join(answer.rstrip("\n").split("\n"))
        if command.startswith("TTL") and int(expected) > 0: # some seconds may have passed
            answer, expected = str(0 <= int(expected) - int(answer) < 600), "True"
        check(answer.rstrip(";") == expected.rstrip(";"), f"{command}: {answer!r}, not {expected!r}")


def encode(*words):
    words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


class Reader:
    def __init__(self, sock):
        self.file = sock.makefile("rb")

    def answer(self):
        line = self.file.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.answer() for _ in range(int(rest))]
        return int(rest) if kind == b":" else line[:-2]


# rules: E-11
def test_a_pipeline_is_answered_in_order(port):
    """Random commands, cut into random pieces, against a dictionary."""
    dice = random.Random(port)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(60)
        reader, model = Reader(sock), {}
        for _ in range(60):
            request, expected = b"", []
            for _ in range(dice.randrange(1, 60)):
                key = f"key{dice.randrange(40)}"
                match dice.randrange(5):
                    case 0 | 1:
                        model[key] = os.urandom(dice.choice([0, 1, 30, 3000]))
                        request += encode("set", key, model[key])
                        expected.append(b"+OK")
                    case 2:
                        request += encode("GET", key)
                        expected.append(model.get(key))
                    case 3:
                        keys = [f"key{dice.randrange(40)}" for _ in range(dice.randrange(1, 6))]
                        request += encode("MGET", *keys)
                        expected.append([model.get(one) for one in keys])
                    case 4:
                        request += encode("DEL", key)
                        expected.append(int(model.pop(key, None) is not None))
            while request:
                size = dice.choice([1, 7, 100, 5000, 100000])
                sock.sendall(request[:size])
                request = request[size:]
            got = [reader.answer() for _ in expected]
            check(got == expected, "a pipeline was answered otherwise")
        sock.sendall(encode("FLUSHALL"))
        check(reader.answer() == b"+OK", "FLUSHALL")


# rules: E-11
def test_what_is_no_request_ends_the_connection(port):
    for request, answer in ((b"*1\r\n+OK\r\n", b"-ERR Protocol error: expected '$'\r\n"),
                            (b"*x\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
                            (b"*1\r\n$-5\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
                            (b"QUIT\r\nPING\r\n", b"+OK\r\n")):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.settimeout(60)
            sock.sendall(request)
            got = b""
            while part := sock.recv(1000):
                got += part
            check(got == answer, f"{request!r}: {got!r}")


# rules: E-11
def test_what_expires_is_gone(port):
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(60)
        reader = Reader(sock)
        sock.sendall(encode("SET", "soon", "1", "PX", "50") + encode("GET", "soon"))
        check([reader.answer(), reader.answer()] == [b"+OK", b"1"], "SET with PX")
        end, size = time.monotonic() + 30, 1
        while size and time.monotonic() < end: # without being asked for it
            sock.sendall(encode("DBSIZE"))
            size = reader.answer()
        check(size == 0, "what has expired is still there")


# rules: E-11
def test_connections_that_end_amid_a_pipeline(port):
    request = b"".join(encode("SET", f"key{i}", "x" * 100) + encode("MGET", "key1", f"key{i}") for i in range(500))
    for _ in range(40):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(request)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(60)
        sock.sendall(encode("PING"))
        check(Reader(sock).answer() == b"+PONG", "PING after that")


def main():
    help_text = subprocess.run([SERVER, "--help"], capture_output=True, text=True)
    check(help_text.returncode == 0 and help_text.stdout.startswith("usage:"), "--help")
    check(subprocess.run([SERVER, "--workers", "x"], capture_output=True).returncode == 2, "--workers x")
    for workers in (1, 3):
        server, port = start(workers)
        test_redis_cli_session(port) if shutil.which("redis-cli") else print("there is no redis-cli")
        test_a_pipeline_is_answered_in_order(port)
        test_what_is_no_request_ends_the_connection(port)
        test_what_expires_is_gone(port)
        test_connections_that_end_amid_a_pipeline(port)
        stop(server)
    print(f"{len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
