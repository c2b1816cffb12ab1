#!/usr/bin/env python3
# tram-check: release-only
"""Four servers of examples/ x three ends, under load: SIGTERM, a restart by inheritance, the end of the grace.

Every request that was read is answered, and the end of the stream follows the last answer directly; a download that is
read within the grace is whole, one past it sees a reset; "Connection: close" is said, and who heeds it loses nothing.
Then tram-load --reconnect through restarts of tram-echo.

rules: G-1, G-2, G-3, G-6
"""

import asyncio
import errno
import hashlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

BUILD = pathlib.Path(os.environ.get("TRAM_BUILD_DIR") or "build/release").absolute()
SUPPORT = pathlib.Path(__file__).resolve().parents[1] / "support"
PATIENCE = 60
SOON = 8 # seconds; the grace is 10
CROWD, SETTLED = 12, 6
BIG, PARTS = 1 << 20, 12

problems = []
started = []


def check(condition, what):
    print(("ok      " if condition else "FAILED  ") + what, flush=True)
    if not condition:
        problems.append(what)


class Ended(Exception):
    """The stream ended between two answers."""


class Cut(Exception):
    """It ended within one."""


class Client:
    """A connection, and what is read of it."""

    @classmethod
    async def open(cls, port):
        self = cls()
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
        return self

    def say(self, data):
        self.writer.write(data)

    async def begin(self):
        """The first byte of an answer."""
        try:
            first = await asyncio.wait_for(self.reader.read(1), PATIENCE)
        except BrokenPipeError:
            first = b"" # sent behind the end of the stream
        if not first:
            raise Ended
        return first

    async def exactly(self, size):
        try:
            return await asyncio.wait_for(self.reader.readexactly(size), PATIENCE)
        except asyncio.IncompleteReadError as error:
            raise Cut(f"{len(error.partial)} of {size} bytes") from None

    async def until(self, end):
        try:
            return await asyncio.wait_for(self.reader.readuntil(end), PATIENCE)
        except asyncio.IncompleteReadError as error:
            raise Cut(f"{error.partial!r} without {end!r}") from None

    async def is_over(self):
        return await asyncio.wait_for(self.reader.read(1), PATIENCE) == b""

    def close(self):
        self.writer.transport.abort()


# ---- What each of them is asked, and answers ----

class Http:
    name, arguments = "http-static-server", ("--root", ".")
    crowd_says = b"GET /small HTTP/1.1\r\nHost: x\r\n\r\n"
    burst, burst_answers = crowd_says * 6, 6
    download_says = stuck_says = b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n" + crowd_says

    async def prepare(self, _):
        pathlib.Path("small").write_bytes(b"s" * 1000)
        pathlib.Path("big").write_bytes(bytes(BIG * PARTS))

    async def open(self, port):
        return await Client.open(port)

    async def answer(self, client):
        """True: it is the last one."""
        head = await client.begin() + await client.until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        await client.exactly(int(head.partition(b"Content-Length: ")[2].split()[0]))
        return b"Connection: close" in head

    async def download(self, client):
        await self.answer(client)
        check(await self.answer(client), f"{self.name}: the last answer says that it is")


class Cache:
    name, arguments = "cache-server", ()
    crowd_says = b"get a b c\r\n"
    burst, burst_answers = b"set d 0 0 1\r\nd\r\n" + b"get a b c\r\n" * 6 + b"incr n 1\r\n", 8
    download_says = stuck_says = b"get" + b" big" * PARTS + b"\r\nget a b c\r\n"

    async def prepare(self, port):
        client = await Client.open(port)
        for key, value in ("a", b"1"), ("b", b"2"), ("c", b"3"), ("n", b"1"), ("big", bytes(BIG)):
            client.say(f"set {key} 0 0 {len(value)}\r\n".encode() + value + b"\r\n")
            await client.until(b"STORED\r\n")
        client.close()

    async def open(self, port):
        return await Client.open(port)

    async def answer(self, client, values=3):
        line = await client.begin() + await client.until(b"\r\n")
        if not line.startswith(b"VALUE"):
            # A process that has just begun has nothing.
            assert line in (b"STORED\r\n", b"NOT_FOUND\r\n", b"END\r\n") or line.strip().isdigit(), line
            return False
        for _ in range(values):
            await client.exactly(int(line.split()[3]) + 2)
            line = await client.until(b"\r\n")
        assert line == b"END\r\n", line
        return False

    async def download(self, client):
        await self.answer(client, PARTS)
        await self.answer(client)


class Hash:
    name, arguments = "hash-server", ()
    crowd_says = b"hello\n"
    LONG = b"l" * 17000 # hashed on another thread
    burst, burst_answers = b"hello\n" + LONG + b"\nhello\n" + b"hello\n" * 4, 7
    download_says = b"hello\n" * 3000
    stuck_says = b"hello\n" * 200000 # more answers than two kernels keep for one who does not read
    ANSWERS = {hashlib.sha256(line).hexdigest().encode() + b"\n" for line in (b"hello", LONG, b"")}

    async def prepare(self, _):
        pass

    async def open(self, port):
        return await Client.open(port)

    async def answer(self, client):
        line = await client.begin() + await client.until(b"\n")
        assert line in self.ANSWERS, line
        return False

    async def download(self, client):
        for _ in range(3000):
            await self.answer(client)


class Socks:
    """Its target sends back what it gets or, asked for it, what is as long as a download."""
    name, arguments = "socks5-proxy", ()
    crowd_says = b"e" * 100
    download_says = stuck_says = b"D"

    async def prepare(self, _):
        async def serve(reader, writer):
            try:
                while data := await reader.read(65536):
                    writer.write(bytes(BIG * PARTS) if data == b"D" else data)
                    if data == b"D":
                        await writer.drain()
                        break
                writer.close()
            except ConnectionError:
                writer.close()

        target = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = target.sockets[0].getsockname()[1].to_bytes(2, "big")
        self.request = b"\x05\x01\x00" b"\x05\x01\x00\x01\x7f\x00\x00\x01" + port
        self.burst, self.burst_answers = self.request + self.crowd_says, 3

    async def open(self, port):
        client = await Client.open(port)
        client.say(self.request)
        await self.answer(client)
        await self.answer(client)
        return client

    async def answer(self, client):
        """The proxy's two answers, then what comes back from the target."""
        client.step = getattr(client, "step", 0) + 1
        first = await client.begin()
        rest = await client.exactly({1: 1, 2: 9}.get(client.step, 99))
        assert (first, rest[:1]) == ((b"\x05", b"\0") if client.step < 3 else (b"e", b"e")), (first, rest)
        return False

    async def download(self, client):
        await client.exactly(BIG * PARTS)


# ---- A run ----

class Server:
    def __init__(self, talk, name):
        command = [BUILD / "examples" / talk.name, "--port", "0", "--workers", "2", "--inherit", name, *talk.arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(self.process)
        line = self.process.stdout.readline()
        assert line.startswith("listening on 127.0.0.1:"), line + self.process.stderr.read()
        self.port = int(line.rpartition(":")[2])

    async def end(self):
        """Its code, and what it said on standard error."""
        _, said = await asyncio.to_thread(self.process.communicate, timeout=PATIENCE)
        return self.process.returncode, said


class Run:
    def __init__(self, talk, what, server):
        self.talk, self.what, self.port = talk, f"{talk.name}, {what}", server.port
        self.over, self.answered, self.repeated, self.said = False, 0, 0, 0
        self.wrong = []
        self.may_be_gone = False # nobody listens any more

    async def visit(self):
        client = await self.talk.open(self.port)
        try:
            while not self.over:
                client.say(self.talk.crowd_says)
                last = await self.talk.answer(client)
                self.answered += 1
                if last:
                    self.said += 1
                    if not await client.is_over():
                        self.wrong.append("more behind the last answer")
                    return
        finally:
            client.close()

    async def stay(self):
        while not self.over:
            try:
                await self.visit()
            except Ended:
                self.repeated += 1
            except OSError as error:
                if self.may_be_gone and error.errno == errno.ECONNREFUSED:
                    return
                self.wrong.append(repr(error))
            except (Cut, AssertionError) as error:
                self.wrong.append(repr(error))

    async def more(self, count):
        until, limit = self.answered + count, time.monotonic() + PATIENCE
        while self.answered < until and time.monotonic() < limit and not self.wrong:
            await asyncio.sleep(0.005)
        check(self.answered >= until, f"{self.what}: clients are served {self.wrong[:3]}")

    async def settle(self):
        """Connections whose requests were all read, since they came in one piece and the first is answered."""
        async def one():
            client = await Client.open(self.port)
            client.say(self.talk.burst)
            await self.talk.answer(client)
            return client

        return await asyncio.gather(*(one() for _ in range(SETTLED)))

    async def finish_settled(self, clients):
        try:
            for client in clients:
                for _ in range(self.talk.burst_answers - 1):
                    await self.talk.answer(client)
                if isinstance(self.talk, Socks):
                    client.writer.write_eof() # a bridge ends when one of its sides does
                if not await client.is_over():
                    raise Cut("more behind the last answer")
                client.close()
            check(True, f"{self.what}: what was read is answered, and then the stream ends")
        except (Ended, Cut, AssertionError, OSError) as error:
            check(False, f"{self.what}: what was read is answered: {error!r}")

    async def begin_download(self, says=None):
        client = await self.talk.open(self.port)
        client.say(says or self.talk.download_says)
        while not client.reader._buffer: # it has begun
            await asyncio.sleep(0.001)
        return client

    async def finish_download(self, client):
        try:
            await self.talk.download(client)
            check(await client.is_over(), f"{self.what}: a download is whole, and then the stream ends")
        except (Ended, Cut, AssertionError, OSError) as error:
            check(False, f"{self.what}: a download is whole: {error!r}")
        client.close()

    async def finish_stuck(self, client):
        """What nobody read while there was time."""
        try:
            while await asyncio.wait_for(client.reader.read(1 << 20), PATIENCE):
                pass
            check(False, f"{self.what}: past the grace there is a reset, no end")
        except ConnectionResetError:
            check(True, f"{self.what}: past the grace there is a reset")
        client.close()

    def finish_crowd(self):
        check(not self.wrong, f"{self.what}: {self.answered} answers, {self.repeated} to repeat, {self.said} said to be "
                              f"the last {self.wrong[:3]}")


async def graceful(talk, what, server, begin_end):
    run = Run(talk, what, server)
    crowd = [asyncio.create_task(run.stay()) for _ in range(CROWD)]
    await run.more(100)
    download = await run.begin_download()
    settled = await run.settle()
    begin = time.monotonic()
    next_server = await begin_end(run)
    await run.finish_settled(settled)
    await run.finish_download(download)
    if next_server:
        await run.more(100)
    if isinstance(talk, Socks) or next_server:
        run.over = True # bridges end when their clients do
    await asyncio.wait_for(asyncio.gather(*crowd), PATIENCE)
    code, said = await server.end()
    check(code == 0 and time.monotonic() - begin < SOON, f"{run.what}: it ends well and within the grace {code} {said}")
    run.finish_crowd()
    return next_server


async def late(talk, server):
    run = Run(talk, "the end of the grace", server)
    run.may_be_gone = True
    stuck = [await run.begin_download(talk.stuck_says) for _ in range(2)]
    settled = await run.settle()
    server.process.send_signal(signal.SIGTERM)
    await run.finish_settled(settled)
    await asyncio.sleep(0.15) # two signals within 100 ms are one
    check(server.process.poll() is None, f"{run.what}: it waits for those that are busy")
    server.process.send_signal(signal.SIGTERM)
    code, said = await server.end()
    check(code == 0, f"{run.what}: it ends well {code} {said}")
    for client in stuck:
        await run.finish_stuck(client)


async def table(talk):
    name = f"@tram-ends-{os.getpid()}-{talk.name}"

    async def inherit(_):
        return await asyncio.to_thread(Server, talk, name)

    async def terminate(run):
        run.may_be_gone = True
        server.process.send_signal(signal.SIGTERM)

    server = Server(talk, name)
    await talk.prepare(server.port)
    server = await graceful(talk, "a restart by inheritance", server, inherit)
    if isinstance(talk, Cache):
        await talk.prepare(server.port)
    await graceful(talk, "SIGTERM", server, terminate)
    server = Server(talk, name)
    if isinstance(talk, Cache):
        await talk.prepare(server.port)
    await late(talk, server)


def echo(*options):
    process = subprocess.Popen([BUILD / "tools/tram-echo", "--workers", "2", *options], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    started.append(process)
    line = process.stdout.readline()
    assert line.startswith("listening on 127.0.0.1:"), line
    return process, line.split()[2].rpartition(":")[2]


def reconnects(what, restart, options):
    """tram-load goes on through restarts: what was sent on a connection whose end had come is sent again."""
    server, port = echo(*options)
    load = subprocess.Popen([BUILD / "tools/tram-load", "--port", port, "--connections", "20", "--pipeline", "4",
                             "--reconnect", "--workers", "1", "--duration", "0.8", "--json"], stdout=subprocess.PIPE, text=True)
    started.append(load)
    for _ in range(2):
        time.sleep(0.2) # of load
        server = restart(server, options)
    out, _ = load.communicate(timeout=PATIENCE)
    report = json.loads(out)
    check(load.returncode == 0 and report["reconnects"] >= 40 and not any(report["errors"].values()),
          f"tram-load --reconnect, {what}: {load.returncode}, {report['requests']} requests, {report['reconnects']} "
          f"reconnects, {report['repeated']} repeated, {report['first_error']}")
    server.terminate()
    server.communicate(timeout=PATIENCE)


def by_inheritance(server, options):
    following, _ = echo(*options)
    server.communicate(timeout=PATIENCE)
    return following


def by_signal(server, options):
    server.terminate()
    server.communicate(timeout=PATIENCE)
    return echo(*options)[0]


async def main():
    for talk in Http(), Cache(), Hash(), Socks():
        await table(talk)


with tempfile.TemporaryDirectory(prefix="tram-ends-") as folder:
    os.chdir(folder)
    try:
        asyncio.run(main())
        reconnects("inheritance", by_inheritance,
                   ["--port", "0", "--drain-ms", "0", "--inherit", f"@tram-ends-{os.getpid()}"])
        own = subprocess.run([sys.executable, SUPPORT / "own_port.py"], check=True, capture_output=True, text=True)
        reconnects("SIGTERM", by_signal, ["--port", own.stdout.strip()])
    finally:
        for each in started:
            each.kill()
            each.communicate()
print(f"{len(problems)} problems")
sys.exit(1 if problems else 0)
