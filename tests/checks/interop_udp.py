#!/usr/bin/env python3
"""Datagrams between tram and Python's asyncio, both ways round, over UDP and Unix sockets.

interop_udp.c is tram's side; it is compiled here against the built library.
"""
# tram-check: release-only

import asyncio
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from checks import check, compile_program, failures  # noqa: E402

PATIENCE = 60
COUNT = 300
AHEAD = 4


def datagram(number):
    size = 0 if number % 10 == 0 else number * 977 % 20000
    return bytes((number + i * 7) & 255 for i in range(size))


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        if data:
            self.transport.sendto(data, addr)
        else: # which asyncio before 3.13 does not send
            self.transport.get_extra_info("socket")._sock.sendto(data, addr)

    def error_received(self, exc):
        check(False, f"asyncio's echo: {exc!r}")


class Ask(asyncio.DatagramProtocol):
    """Sends datagrams, some ahead, and compares what comes back."""

    def __init__(self, count):
        self.count, self.sent, self.answered = count, 0, 0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.ask()

    def ask(self):
        while self.sent < self.count and self.sent < self.answered + AHEAD:
            # Those that asyncio would not send have one byte.
            self.transport.sendto(datagram(self.sent) or b"-")
            self.sent += 1
        if self.answered == self.count:
            self.done.set_result(True)

    def datagram_received(self, data, addr):
        if self.done.done():
            return
        if data != (datagram(self.answered) or b"-"):
            self.done.set_exception(AssertionError(f"datagram {self.answered} came back wrong"))
            return
        self.answered += 1
        self.ask()

    def error_received(self, exc):
        self.done.set_exception(exc)


async def ask_tram(program, arguments, endpoint):
    """asyncio asks; `endpoint` says how to reach where tram is."""
    server = subprocess.Popen([program, "echo", *arguments], stdout=subprocess.PIPE, text=True)
    try:
        where = server.stdout.readline().strip()
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_datagram_endpoint(lambda: Ask(COUNT), **endpoint(where))
        try:
            await asyncio.wait_for(protocol.done, PATIENCE)
        finally:
            transport.close()
        server.send_signal(signal.SIGTERM)
        check(server.wait(PATIENCE) == 0, f"tram's echo ended with {server.returncode}")
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


async def tram_asks(program, endpoint, arguments):
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Echo, **endpoint)
    try:
        command = [program, "ask", *arguments(transport.get_extra_info("sockname")), str(COUNT)]
        client = await asyncio.create_subprocess_exec(*command, stderr=subprocess.PIPE)
        _, errors = await asyncio.wait_for(client.communicate(), PATIENCE)
        check(client.returncode == 0, f"tram asks: {client.returncode}: {errors.decode()}")
    finally:
        transport.close()


async def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        program = compile_program("interop_udp", folder)
        server, client = str(folder / "server"), str(folder / "client")
        await ask_tram(program, ["udp"], lambda where: {"remote_addr": tuple(where.rsplit(":", 1))})
        await tram_asks(program, {"local_addr": ("127.0.0.1", 0)}, lambda name: ["udp", name[0], str(name[1])])
        await ask_tram(program, ["unix", server],
                       lambda where: {"local_addr": client, "remote_addr": where.removeprefix("unix:"),
                                      "family": socket.AF_UNIX})
        # Both files are stale by now, and both sides remove them.
        await tram_asks(program, {"local_addr": server, "family": socket.AF_UNIX}, lambda name: ["unix", client, name])
    print("failed" if failures else "tram and asyncio understand each other's datagrams")
    return 1 if failures else 0


sys.exit(asyncio.run(main()))
