#!/usr/bin/env python3
"""Restarts of tram-echo under load.

Clients that come and go, and clients that stay and send now and then, while one process after another takes over the
listeners: nobody is refused or reset. The same with a plain SIGTERM, where nobody comes after: whoever was connected
got its echo or a clean end. Sockets passed as systemd does it.
"""

import asyncio
import collections
import fcntl
import os
import random
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile

BUILD = os.environ.get("TRAM_BUILD_DIR", "build/release")
ECHO = os.path.join(BUILD, "tools", "tram-echo")
OWN_PORT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support", "own_port.py")
FULL = "TRAM_TEST_FULL" in os.environ
PATIENCE = 60
CLIENTS = 200 if FULL else 40       # of each kind
RESTARTS = 8 if FULL else 3
ENDS = 20 if FULL else 4
DRAIN_MS = "3000" if FULL else "500" # how long connections of an old process go on

failures = []


def check(condition, text):
    if not condition:
        failures.append(text)
        print("FAILED:", text, file=sys.stderr)


class Echo:
    """A tram-echo that has said where it listens."""

    def __init__(self, *options, command=(ECHO,), **more):
        self.process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True, **more)

    async def listening(self):
        line = await asyncio.to_thread(self.process.stdout.readline)
        match = re.fullmatch(r"listening on 127\.0\.0\.1:(\d+) workers=(\d+) backend=\w+ shard=(\w+)\n", line)
        check(match, f"the first line: {line!r}")
        self.port, self.workers, self.shard = int(match[1]), int(match[2]), match[3]
        return self

    async def end(self, *signals):
        for number in signals:
            self.process.send_signal(number)
        out, self.errors = await asyncio.to_thread(self.process.communicate, timeout=PATIENCE)
        check(self.process.returncode == 0, f"tram-echo ended with {self.process.returncode}: {self.errors}")
        return out

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


async def one_echo(sock, bytes_):
    """"echo", or "end" where the stream ended instead. A reset is an exception."""
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_sendall(sock, bytes_)
    except BrokenPipeError:
        pass # the end of the stream was there before, and is still to be read
    got = b""
    while len(got) < len(bytes_):
        part = await loop.sock_recv(sock, len(bytes_) - len(got))
        if not part:
            return "end"
        got += part
    check(got == bytes_, f"{got!r} came back for {bytes_!r}")
    return "echo"


class Crowd:
    """Clients of both kinds on one port, and what became of them."""

    def __init__(self, port):
        self.port = port
        self.counts = collections.Counter()
        self.ended = False
        self.gone = False # nobody listens there any more

    async def visit(self, kind, use):
        with socket.socket() as sock:
            sock.setblocking(False)
            try:
                await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
            except ConnectionRefusedError:
                self.gone = True
                return self.count(kind, "refused")
            except ConnectionResetError:
                return self.count(kind, "reset in connect")
            try:
                return self.count(kind, await use(sock))
            except ConnectionResetError:
                return self.count(kind, "reset")

    def count(self, kind, what):
        self.counts[kind, what] += 1
        return what

    async def short(self):
        while not self.ended:
            if await self.visit("short", lambda sock: one_echo(sock, random.randbytes(16))) == "refused":
                return
            await asyncio.sleep(0)

    async def stay(self, sock):
        while not self.ended:
            await asyncio.sleep(random.random() * 0.1)
            if await one_echo(sock, random.randbytes(100)) == "end":
                return "end"
            self.counts["long", "echo"] += 1
        return "stayed"

    async def long(self):
        while not self.ended:
            if await self.visit("long", self.stay) == "refused":
                return

    async def __aenter__(self):
        self.tasks = [asyncio.create_task(kind()) for _ in range(CLIENTS) for kind in (self.short, self.long)]
        await self.more("short", 2 * CLIENTS)
        await self.more("long", 2 * CLIENTS)
        return self

    async def more(self, kind, echoes):
        """Waits until so many more echoes came."""
        until = self.counts[kind, "echo"] + echoes
        while self.counts[kind, "echo"] < until and not self.gone:
            await asyncio.sleep(0.01)

    async def __aexit__(self, *error):
        self.ended = True
        await asyncio.wait_for(asyncio.gather(*self.tasks), PATIENCE)

    def text(self):
        return ", ".join(f"{kind} {what} {count}" for (kind, what), count in sorted(self.counts.items()))


# rules: V-42, V-45, V-47, G-6
def test_restarts_under_load_lose_nobody(workers):
    asyncio.run(restarts_under_load(workers))


async def restarts_under_load(workers):
    """`workers`: of each process in turn."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "offer")
        options = ["--host", "127.0.0.1", "--port", "0", "--inherit", path, "--drain-ms", DRAIN_MS]
        echo = await Echo(*options, "--workers", str(workers[0])).listening()
        try:
            async with Crowd(echo.port) as crowd:
                for i in range(RESTARTS):
                    old, echo = echo, Echo(*options, "--workers", str(workers[(i + 1) % len(workers)]))
                    await echo.listening()
                    check(echo.port == old.port, "the new process listens elsewhere")
                    # Half of them are told, too; the others end by themselves, when they had time for the short ones.
                    told, unserved = i % 2, crowd.counts["short", "end"]
                    await old.end(*[signal.SIGTERM] * told)
                    unserved = crowd.counts["short", "end"] - unserved
                    check(told or not FULL or not unserved, f"{unserved} short clients got no echo")
                    check("are aborted" not in old.errors, old.errors)
                    await crowd.more("short", 2 * CLIENTS)
                    await crowd.more("long", 2 * CLIENTS)
            check(os.path.exists(path), "the offer of the last process is not there")
            await echo.end(signal.SIGTERM)
            check(not os.path.exists(path), "the offer of the last process is still there")
        finally:
            echo.kill()
        print(f"{RESTARTS} restarts with {workers} workers: {crowd.text()}")
        for what in "refused", "reset", "reset in connect":
            for kind in "short", "long":
                check(not crowd.counts[kind, what], f"{crowd.counts[kind, what]} {kind} clients: {what}")
        check(crowd.counts["long", "end"] >= CLIENTS, "the long ones of the processes that ended were told so")


# rules: V-47
def test_each_server_gets_its_own_listeners():
    asyncio.run(two_servers())


async def two_servers():
    """The metrics are on a port of their own, which goes along, unless the next one has no use for it."""
    path = f"@tram-restart-{os.getpid()}"
    options = ["--host", "127.0.0.1", "--port", "0", "--inherit", path, "--drain-ms", "0"]
    echo = await Echo(*options, "--metrics", "0").listening()
    try:
        lines = [echo.process.stdout.readline()]
        port = int(re.fullmatch(r"metrics on http://127\.0\.0\.1:(\d+)/metrics\n", lines[0])[1])
        for more in (["--metrics", str(port)], []):
            old, echo = echo, await Echo(*options, *more).listening()
            await old.end()
            if more:
                lines.append(echo.process.stdout.readline())
                with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
                    client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
                    check(client.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200", "no metrics from the new process")
        check(lines[0] == lines[1], f"the metrics moved: {lines}")
        await echo.end(signal.SIGTERM)
    finally:
        echo.kill()


# rules: V-47, G-6
def test_a_signal_after_a_restart_is_the_first_one():
    asyncio.run(signal_after_restart())


async def signal_after_restart():
    """Who has the listeners no more is stopped: what is queued is sent, as without a restart."""
    options = ["--host", "127.0.0.1", "--port", "0", "--inherit", f"@tram-restart-{os.getpid()}", "--drain-ms", "0"]
    old = await Echo(*options, "--grace-ms", str(PATIENCE * 1000)).listening()
    new = None
    try:
        with socket.create_connection(("127.0.0.1", old.port), PATIENCE) as client:
            while select.select([], [client], [], 0.2)[1]:
                client.send(bytes(65536), socket.MSG_DONTWAIT)
            new = await Echo(*options).listening()
            line = await asyncio.to_thread(old.process.stderr.readline)
            while line and "were taken over" not in line:
                line = await asyncio.to_thread(old.process.stderr.readline)
            old.process.send_signal(signal.SIGTERM)
            hung_up = select.poll()
            hung_up.register(client, 0)
            check(not hung_up.poll(300), "a peer that is slow to read was cut off")
            try:
                while client.recv(65536):
                    pass
            except ConnectionResetError:
                pass # by the kernel, after all that was queued: it never read all that we sent
        await old.end()
        check("are aborted" not in old.errors, old.errors)
        await new.end(signal.SIGTERM)
    finally:
        old.kill()
        if new is not None:
            new.kill()


# rules: V-17, V-42
def test_an_end_without_a_successor_is_a_clean_one():
    asyncio.run(ends_without_a_successor())


async def ends_without_a_successor():
    total = collections.Counter()
    for i in range(ENDS):
        shard = ("reuseport", "handoff", "shared", "fixed")[i % 4]
        # The clients come until they are refused: by a port that nobody else is given meanwhile.
        port = subprocess.check_output([sys.executable, OWN_PORT], text=True).strip()
        echo = await Echo("--host", "127.0.0.1", "--port", port, "--workers", "2", "--shard", shard).listening()
        try:
            async with Crowd(echo.port) as crowd:
                await echo.end(signal.SIGTERM)
        finally:
            echo.kill()
        total += crowd.counts
        check("are aborted" not in echo.errors, echo.errors)
    resets = sum(count for (_, what), count in total.items() if what.startswith("reset"))
    served = sum(count for (_, what), count in total.items() if what in ("echo", "end", "stayed"))
    print(f"{ENDS} ends: " + ", ".join(f"{kind} {what} {count}" for (kind, what), count in sorted(total.items())))
    print(f"{resets} resets: clients whose handshake was under way when the last listener closed, which the kernel "
          "resets")
    check(resets * 10 < served, f"{resets} resets with {served} good ends")


# rules: V-46
def test_sockets_as_systemd_passes_them():
    asyncio.run(sockets_of_systemd())


async def sockets_of_systemd():
    listeners = []
    for _ in range(2):
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        sock.set_inheritable(True)
        listeners.append(sock)
    high = [fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD, 20) for sock in listeners]
    script = f'LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=one:two exec "$@" 3<&{high[0]} 4<&{high[1]}'
    echo = Echo("--workers", "3", command=("bash", "-c", script, "activated", ECHO), pass_fds=high)
    try:
        await echo.listening()
        check(echo.shard == "shared", f"one socket of each address and three workers: {echo.shard}")
        for sock in listeners:
            for _ in range(5):
                with socket.create_connection(sock.getsockname(), PATIENCE) as client:
                    client.sendall(b"hello")
                    check(client.recv(5, socket.MSG_WAITALL) == b"hello", "no echo from a socket that was passed")
        await echo.end(signal.SIGTERM)
    finally:
        echo.kill()
        for fd in high:
            os.close(fd)
        for sock in listeners:
            sock.close()

    done = subprocess.run(["bash", "-c", 'LISTEN_PID=$$ LISTEN_FDS=2 exec "$@" 3<&- 4<&-', "activated", ECHO],
                          capture_output=True, text=True, timeout=PATIENCE, check=False)
    check(done.returncode == 1 and "cannot take listeners over" in done.stderr, f"no such sockets: {done}")

    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"\0tram-restart-{os.getpid()}")
        sock.listen()
        high = fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD, 20)
        script = f'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&{high}'
        done = subprocess.run(["bash", "-c", script, "activated", ECHO, "--max-per-source", "1"], pass_fds=[high],
                              capture_output=True, text=True, timeout=PATIENCE, check=False)
        check(done.returncode == 1 and "sockets that were passed" in done.stderr, f"a socket without sources: {done}")
        os.close(high)


test_restarts_under_load_lose_nobody((2,))
test_restarts_under_load_lose_nobody((2, 3, 1))
test_each_server_gets_its_own_listeners()
test_a_signal_after_a_restart_is_the_first_one()
test_an_end_without_a_successor_is_a_clean_one()
test_sockets_as_systemd_passes_them()
sys.exit(1 if failures else 0)
