#!/usr/bin/env python3
"""tram's programs against programs of others: Python's asyncio both ways round, and socat.

Also what a user meets at the edges of the programs: bad hosts, occupied and privileged ports, bad options, wrong data,
unreachable targets, a server that is told to end. Every one must end with a clear message and its own exit code.
"""

import asyncio
import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys

BUILD = os.environ.get("TRAM_BUILD_DIR", "build/release")
ECHO = os.path.join(BUILD, "tools", "tram-echo")
LOAD = os.path.join(BUILD, "tools", "tram-load")
PATIENCE = 60

failures = []


def check(condition, text):
    if not condition:
        failures.append(text)
        print("FAILED:", text, file=sys.stderr)


@contextlib.contextmanager
def echo_server(*options):
    """A running tram-echo: (process, port). It must end well when it is told to."""
    server = subprocess.Popen([ECHO, "--host", "127.0.0.1", "--port", "0", *options],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline()
        match = re.fullmatch(r"listening on 127\.0\.0\.1:(\d+) workers=(\d+) backend=(\w+) shard=(\w+)\n", line)
        check(match, f"tram-echo's first line: {line!r}")
        yield server, int(match.group(1))
        server.send_signal(signal.SIGTERM)
        out, err = server.communicate(timeout=PATIENCE)
        check(server.returncode == 0, f"tram-echo ended with {server.returncode}: {err}")
        totals = re.findall(r"^worker \d+: connections=(\d+) bytes_in=(\d+) bytes_out=(\d+) reads=\d+ writes=\d+ "
                            r"ticks=\d+ wakeups=\d+", out, re.M)
        check(len(totals) == int(match.group(2)), f"a line of totals per worker: {out!r}")
        server.totals = [tuple(map(int, total)) for total in totals]
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()


def load(*options):
    done = subprocess.run([LOAD, "--host", "127.0.0.1", *map(str, options)], capture_output=True, text=True,
                          timeout=PATIENCE, check=False)
    return done.returncode, done.stdout, done.stderr


# ---- Others' clients to our server ----

def asyncio_client_to_tram():
    async def talk(port, number):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        message = (f"client {number} ".encode() * 5000)[: 40000 + number]
        writer.write(message)
        writer.write_eof()
        answer = await reader.read(-1)
        writer.close()
        await writer.wait_closed()
        return answer == message

    async def many(port):
        return await asyncio.wait_for(asyncio.gather(*(talk(port, i) for i in range(50))), PATIENCE)

    with echo_server("--workers", "2") as (server, port):
        results = asyncio.run(many(port))
        check(all(results), f"{results.count(False)} of 50 asyncio clients got wrong bytes back")
    check(sum(total[0] for total in server.totals) == 50, f"50 connections counted: {server.totals}")
    check(sum(total[1] for total in server.totals) == sum(total[2] for total in server.totals) ==
          sum(40000 + i for i in range(50)), f"bytes counted: {server.totals}")


def socat_to_tram():
    if not shutil.which("socat"):
        print("skipped: no socat here")
        return
    with echo_server("--workers", "1") as (_, port):
        message = os.urandom(300000)
        done = subprocess.run(["socat", "-t", "20", "-", f"TCP:127.0.0.1:{port}"], input=message,
                              capture_output=True, timeout=PATIENCE, check=False)
        check(done.stdout == message, f"socat got {len(done.stdout)} of {len(message)} bytes right back")


# ---- Our client to others' servers ----

async def with_python_server(handler, run):
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        return await asyncio.get_running_loop().run_in_executor(None, run, port)


async def python_echo(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()


def tram_load_to_asyncio():
    def run(port):
        return load("--port", port, "--connections", 20, "--size", 1000, "--pipeline", 4, "--duration", 1,
                    "--workers", 1, "--json")
    status, out, err = asyncio.run(with_python_server(python_echo, run))
    check(status == 0, f"tram-load against asyncio ended with {status}: {err}")
    report = json.loads(out) if status == 0 else {}
    check(report.get("requests", 0) > 0, f"tram-load against asyncio: {out}")


def tram_load_finds_wrong_data():
    async def liar(reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data[:-1] + bytes([data[-1] ^ 1]))
        except ConnectionError:
            pass
        writer.close()

    def run(port):
        return load("--port", port, "--connections", 2, "--size", 100, "--duration", 1, "--workers", 1)
    status, out, err = asyncio.run(with_python_server(liar, run))
    check(status == 3, f"wrong data must be exit code 3, is {status}: {out} {err}")


# ---- Both ours ----

def thousand_connections_on_two_workers():
    seconds = "10" if os.environ.get("TRAM_TEST_FULL") else "2"
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = 1000 if most in (-1, resource.RLIM_INFINITY) else min(1000, most - 100)
    with echo_server("--workers", "2") as (server, port):
        status, out, err = load("--port", port, "--connections", count, "--size", 64, "--duration", seconds,
                                "--workers", 2, "--json")
        check(status == 0, f"{count} connections: exit code {status}: {err}")
        report = json.loads(out)
        check(not any(report["errors"].values()), f"{count} connections: errors {report['errors']}")
    check(len(server.totals) == 2 and all(total[0] > 0 and total[1] > 0 for total in server.totals),
          f"both workers serve: {server.totals}")


def churn():
    with echo_server("--workers", "2") as (server, port):
        status, out, err = load("--port", port, "--connections", 20, "--size", 64, "--duration", 1, "--workers", 1,
                                "--churn", "--json")
        check(status == 0, f"churn: exit code {status}: {err}")
        requests = json.loads(out)["requests"]
        check(requests > 0, f"churn: {requests} requests")
    check(sum(total[0] for total in server.totals) >= requests, f"a connection per request: {server.totals}")


# ---- The edges ----

def fails(program, arguments, code, pattern, **options):
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False,
                          **options)
    what = f"{os.path.basename(program)} {' '.join(arguments)}"
    check(done.returncode == code, f"{what}: exit code {done.returncode}, not {code}: {done.stderr}")
    check(re.search(pattern, done.stderr, re.I), f"{what}: {done.stderr!r} does not say {pattern!r}")


def edges():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        fails(ECHO, ["--host", "127.0.0.1", "--port", str(port)], 1, rf"127\.0\.0\.1:{port}.*in use")
    fails(ECHO, ["--host", "no-such-host.invalid", "--port", "0"], 1, "no-such-host.invalid")
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as file:
        first_free = int(file.read())
    if first_free > 1:
        options = {"user": 65534} if os.geteuid() == 0 else {}
        try:
            fails(ECHO, ["--host", "127.0.0.1", "--port", "1"], 1, r"127\.0\.0\.1:1\b.*denied", **options)
        except PermissionError:
            print("skipped: the build directory is not open to others")
    for program in ECHO, LOAD:
        for arguments in (["--port", "seventy"], ["--port", "70000"], ["--workers", "-1"], ["--no-such-option"],
                          ["stray"]):
            fails(program, arguments, 2, ".")
        for word in "--help", "--version":
            done = subprocess.run([program, word], capture_output=True, text=True, timeout=PATIENCE, check=False)
            check(done.returncode == 0 and done.stdout, f"{program} {word}")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        fails(LOAD, ["--host", "127.0.0.1", "--port", str(port), "--connections", "2", "--duration", "1"], 4, "refused")


for test in (asyncio_client_to_tram, socat_to_tram, tram_load_to_asyncio, tram_load_finds_wrong_data,
             thousand_connections_on_two_workers, churn, edges):
    try:
        test()
    except Exception as error:  # pylint: disable=broad-except
        check(False, f"{test.__name__}: {type(error).__name__}: {error}")
    print(test.__name__, "ok" if not failures else "")
sys.exit(1 if failures else 0)
