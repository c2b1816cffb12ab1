#!/usr/bin/env python3
"""examples/tcp-proxy between Python's asyncio at both ends.

Byte-exact both ways under random segmentation with slow readers, memory that stays bounded while nobody reads, ends of
streams and resets that go through as what they are, and a target that is not there.
"""

import asyncio
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys

BUILD = os.environ.get("TRAM_BUILD_DIR", "build/release")
PROXY = os.path.join(BUILD, "examples", "tcp-proxy")
PATIENCE = 60
SIZE = 1_500_000
CONNECTIONS = 12

# Memory tells nothing there.
SANITIZED = "TSAN_OPTIONS" in os.environ or "ASAN_OPTIONS" in os.environ

failures = []


def check(condition, text):
    if not condition:
        failures.append(text)
        print("FAILED:", text, file=sys.stderr)


def bytes_of(seed):
    return random.Random(seed).randbytes(SIZE)


async def send_in_pieces(writer, data, seed):
    dice = random.Random(seed)
    place = 0
    while place < len(data):
        size = dice.choice((1, 7, 100, 1460, 5000, 70000))
        writer.write(data[place:place + size])
        place += size
        await writer.drain()
        if dice.random() < 0.01:
            await asyncio.sleep(0.001)
    writer.write_eof()


async def read_slowly(reader, seed):
    dice = random.Random(seed)
    parts = []
    while True:
        part = await reader.read(dice.choice((100, 3000, 65536)))
        if not part:
            return b"".join(parts)
        parts.append(part)
        if dice.random() < 0.02:
            await asyncio.sleep(0.002)


async def exact(port, arrived):
    """Different bytes in both directions at once, on several connections."""
    async def one(number):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        other_reader, other_writer = await arrived.get()
        there, back = bytes_of(number), bytes_of(-1 - number)
        results = await asyncio.gather(
            send_in_pieces(writer, there, number), send_in_pieces(other_writer, back, number + 100),
            read_slowly(other_reader, number + 200), read_slowly(reader, number + 300))
        check(results[2] == there, f"connection {number}: what the target got")
        check(results[3] == back, f"connection {number}: what the client got")
        writer.close()
        other_writer.close()

    async with asyncio.timeout(PATIENCE):
        for first in range(0, CONNECTIONS, 4): # the queue tells apart who was first, not who is whose
            for number in range(first, first + 4):
                await one(number)


async def many_at_once(port, arrived):
    """Echoes, so that it does not matter who is whose."""
    async def echo():
        reader, writer = await arrived.get()
        while part := await reader.read(4096):
            writer.write(part)
            await writer.drain()
        writer.write_eof()
        writer.close()

    async def one(number):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        data = bytes_of(number)[:200_000]
        result = await asyncio.gather(send_in_pieces(writer, data, number), read_slowly(reader, number + 1))
        check(result[1] == data, f"echo {number}")
        writer.close()

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(echo() for _ in range(20)), *(one(number) for number in range(20)))


def resident(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def bounded(port, arrived, pid):
    """20 clients send as much as goes in, to a target that does not read."""
    connections = []
    before = resident(pid)
    for _ in range(20):
        client = socket.create_connection(("127.0.0.1", port))
        connections.append((client, await arrived.get()))
        connections[-1][1][1].transport.pause_reading()
        client.setblocking(False)
    sent = 0
    idle = 0
    while idle < 20:
        idle += 1
        for client, _ in connections:
            try:
                sent += client.send(bytes(262144))
                idle = 0
            except BlockingIOError:
                pass
        await asyncio.sleep(0.005)
    grown = resident(pid) - before
    for client, (_, writer) in connections:
        client.close()
        writer.transport.abort()
    check(sent > 20 * 1_000_000, f"only {sent} bytes went into 20 connections")
    # Above the mark by one receive at most, and what the allocator keeps.
    if SANITIZED:
        return
    check(grown < 20 * 400_000 + 8_000_000, f"20 stuck connections cost {grown} bytes")


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


async def ends(port, arrived):
    """The end of a stream leaves the other direction open; a reset is a reset, from both sides."""
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    other_reader, other_writer = await arrived.get()
    writer.write(b"question")
    writer.write_eof()
    check(await other_reader.read() == b"question", "the question and its end")
    other_writer.write(b"answer")
    other_writer.close()
    check(await reader.read() == b"answer", "the answer and its end")
    writer.close()

    client = socket.create_connection(("127.0.0.1", port))
    other_reader, other_writer = await arrived.get()
    client.send(b"x")
    await other_reader.readexactly(1)
    reset(client)
    try:
        await other_reader.read()
        check(False, "the target saw an end and no reset")
    except ConnectionResetError:
        pass
    other_writer.close()

    client = socket.create_connection(("127.0.0.1", port))
    client.setblocking(False)
    other_reader, other_writer = await arrived.get()
    client.send(b"x")
    await other_reader.readexactly(1)
    other_writer.transport.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    other_writer.transport.abort()
    try:
        check(await loop.sock_recv(client, 1) == b"?", "the client saw an end and no reset")
    except ConnectionResetError:
        pass
    client.close()


async def nobody_there(port, target_port):
    # The port is taken, or somebody else could be there.
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", target_port))
        await refused_target(port)


async def refused_target(port):
    try:
        reader, _ = await asyncio.open_connection("127.0.0.1", port)
        check(await reader.read() == b"?", "without a target the client saw an end and no reset")
    except ConnectionResetError:
        pass


async def run():
    arrived = asyncio.Queue()

    async def keep(reader, writer):
        await arrived.put((reader, writer))

    target = await asyncio.start_server(keep, "127.0.0.1", 0)
    target_port = target.sockets[0].getsockname()[1]
    proxy = subprocess.Popen([PROXY, "0", "127.0.0.1", str(target_port)], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
    try:
        line = proxy.stdout.readline()
        match = re.fullmatch(r"listening on 127\.0\.0\.1:(\d+)\n", line)
        check(match, f"the first line: {line!r}")
        port = int(match.group(1))
        async with asyncio.timeout(PATIENCE):
            await ends(port, arrived)
        await exact(port, arrived)
        await many_at_once(port, arrived)
        async with asyncio.timeout(PATIENCE):
            await bounded(port, arrived, proxy.pid)
            target.close()
            await nobody_there(port, target_port)
        proxy.send_signal(signal.SIGTERM)
        _, errors = proxy.communicate(timeout=PATIENCE)
        check(proxy.returncode == 0, f"tcp-proxy ended with {proxy.returncode}: {errors}")
        check("ERROR" not in errors, errors)
    finally:
        if proxy.poll() is None:
            proxy.kill()
            proxy.wait()


asyncio.run(run())
done = subprocess.run([PROXY], capture_output=True, check=False)
check(done.returncode == 2 and b"usage" in done.stderr, "without arguments it says how it is used")
sys.exit(1 if failures else 0)
