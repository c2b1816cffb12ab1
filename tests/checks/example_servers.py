#!/usr/bin/env python3
"""The server examples: what they answer, in any order of pieces, from two workers, and how they end."""

import asyncio
import hashlib
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys

examples = pathlib.Path(os.environ.get("TRAM_BUILD_DIR") or "build/release") / "examples"
SECONDS = 60


class Server:
    """A program of examples/ on a port that the kernel chooses, ended by SIGTERM and then looked at."""

    def __init__(self, name):
        self.name = name

    async def __aenter__(self):
        self.process = await asyncio.create_subprocess_exec(examples / self.name, "--port", "0", "--workers=2",
                                                            stdout=subprocess.PIPE)
        line = (await asyncio.wait_for(self.process.stdout.readline(), SECONDS)).decode()
        assert line.startswith("listening on 127.0.0.1:"), line
        return int(line.rsplit(":", 1)[1])

    async def __aexit__(self, kind, *_):
        self.process.send_signal(signal.SIGTERM)
        status = await asyncio.wait_for(self.process.wait(), SECONDS)
        assert kind or status == 0, f"{self.name} ended with {status}"


async def send_in_pieces(writer, data):
    while data:
        size = random.choice((1, 7, 100, 1448, 100000))
        writer.write(data[:size])
        await writer.drain()
        data = data[size:]
        await asyncio.sleep(0)


# ---- hash-server ----

async def hash_client(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [random.randbytes(random.choice((0, 3, 55, 56, 63, 64, 65, 1000, 16385, 100000))).replace(b"\n", b" ")
             .replace(b"\r", b" ") for _ in range(60)]

    async def send():
        await send_in_pieces(writer, b"".join(line + b"\n" for line in lines))
        writer.write_eof()

    sending = asyncio.create_task(send())
    for line in lines:
        answer = await asyncio.wait_for(reader.readline(), SECONDS)
        assert answer == hashlib.sha256(line).hexdigest().encode() + b"\n", (line[:100], answer)
    assert await reader.read() == b"", "more came than was asked for"
    await sending
    writer.close()


async def hash_server():
    async with Server("hash-server") as port:
        await asyncio.gather(*(hash_client(port) for _ in range(8)))
        _, leaver = await asyncio.open_connection("127.0.0.1", port)
        leaver.write(b"x" * 500000 + b"\n") # goes while it is hashed
        await leaver.drain()
        leaver.transport.abort()
        await hash_client(port)


# ---- cache-server ----

async def expect(port, said, answer):
    """A conversation of its own: `answer` is all that comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    sending = asyncio.create_task(send_in_pieces(writer, said + b"quit\r\n"))
    came = await asyncio.wait_for(reader.read(), SECONDS)
    assert came == answer, f"{said[:300]}: {came[:300]}, not {answer[:300]}"
    await sending
    writer.close()


def value(key, data, flags=0):
    return b"VALUE %s %d %d\r\n%s\r\n" % (key, flags, len(data), data)


async def cache_commands(port):
    await expect(port, b"set a 5 0 3\r\nabc\r\nget a\r\n", b"STORED\r\n" + value(b"a", b"abc", 5) + b"END\r\n")
    keys = [b"k%d" % i for i in range(100)]
    await expect(port, b"".join(b"set %s 0 0 %d noreply\r\n%s\r\n" % (key, len(key), key) for key in keys)
                 + b"get " + b" ".join(keys) + b" none\r\n", b"".join(value(key, key) for key in keys) + b"END\r\n")
    await expect(port, b"add a 0 0 1\r\nx\r\nreplace a 1 0 2\r\nyy\r\nappend a 0 0 1\r\nz\r\nprepend a 0 0 1\r\nw\r\n"
                 b"replace b 0 0 1\r\nx\r\nget a\r\n", b"NOT_STORED\r\nSTORED\r\nSTORED\r\nSTORED\r\nNOT_STORED\r\n"
                 + value(b"a", b"wyyz", 1) + b"END\r\n")
    await expect(port, b"set n 0 0 2\r\n10\r\nincr n 5\r\ndecr n 100\r\nincr a 1\r\nincr none 1\r\nget n\r\n",
                 b"STORED\r\n15\r\n0\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\nNOT_FOUND\r\n"
                 + value(b"n", b"0") + b"END\r\n")
    await expect(port, b"cas n 0 0 1 99999\r\n1\r\ncas none 0 0 1 1\r\n1\r\ntouch n 100\r\ntouch none 1\r\n"
                 b"delete n\r\ndelete n\r\nget n\r\n",
                 b"EXISTS\r\nNOT_FOUND\r\nTOUCHED\r\nNOT_FOUND\r\nDELETED\r\nNOT_FOUND\r\nEND\r\n")
    await expect(port, b"bogus\r\nset a x y z\r\nverbosity 1\r\nset e 0 -1 1\r\n1\r\nget e\r\n",
                 b"ERROR\r\nCLIENT_ERROR bad command line format\r\nOK\r\nSTORED\r\nEND\r\n")


async def cache_cas(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"set c 0 0 1\r\n1\r\ngets c\r\n")
    assert await reader.readline() == b"STORED\r\n"
    number = (await reader.readline()).split()[4]
    writer.write(b"cas c 0 0 1 %s\r\n2\r\n" % number)
    assert [await reader.readline() for _ in range(3)] == [b"1\r\n", b"END\r\n", b"STORED\r\n"]
    writer.close()


async def cache_large(port):
    large = bytes(1 << 20)
    await expect(port, b"set big 0 0 %d\r\n%s\r\nget big\r\n" % (len(large), large),
                 b"STORED\r\n" + value(b"big", large) + b"END\r\n")
    await expect(port, b"set big2 0 0 %d\r\n%s\r\nget big2\r\n" % (len(large) + 1, large + b"x"),
                 b"SERVER_ERROR object too large for cache\r\nEND\r\n")


async def cache_client(port, number):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(100):
        key, data = b"x%d" % random.randrange(50), b"%d " % number * random.randrange(1, 500)
        writer.write(b"set %s 0 0 %d\r\n%s\r\nget %s\r\n" % (key, len(data), data, key))
        assert await reader.readline() == b"STORED\r\n"
        size = int((await reader.readline()).split()[3])
        found = await reader.readexactly(size + 2)
        assert len(set(found.split())) == 1, "a value that nobody stored"
        assert await reader.readline() == b"END\r\n"
    writer.close()


async def memccapable(port):
    """What memcached's own check says of the text protocol."""
    if not shutil.which("memccapable"):
        print("skipped: no memccapable here")
        return
    checked = await asyncio.create_subprocess_exec("memccapable", "-h", "127.0.0.1", "-p", str(port), "-a", "-v",
                                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, _ = await asyncio.wait_for(checked.communicate(), SECONDS)
    assert checked.returncode == 0 and b"[FAIL]" not in said and b"[pass]" in said, said.decode()


async def cache_server():
    async with Server("cache-server") as port:
        await memccapable(port) # which flushes it
        await cache_commands(port)
        await cache_cas(port)
        await cache_large(port)
        await asyncio.wait_for(asyncio.gather(*(cache_client(port, number) for number in range(30))), SECONDS)
        await expect(port, b"flush_all\r\nget a big k1\r\n", b"OK\r\nEND\r\n")


# ---- socks5-proxy ----

async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def answers(reader, count):
    return await asyncio.wait_for(reader.readexactly(count), SECONDS)


async def socks_client(port, target, kind, address, early):
    """`early` goes with the request, before the proxy has answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = bytes((5, 1, 0, kind)) + address + target.to_bytes(2, "big")
    sending = asyncio.create_task(send_in_pieces(writer, b"\x05\x02\x02\x00" + request + early))
    assert await answers(reader, 2) == b"\x05\x00"
    head = await answers(reader, 4)
    assert head[:3] == b"\x05\x00\x00", head
    await answers(reader, 6 if head[3] == 1 else 18)
    assert await answers(reader, len(early)) == early
    await sending
    data = random.randbytes(300000)
    sending = asyncio.create_task(send_in_pieces(writer, data))
    assert await answers(reader, len(data)) == data
    await sending
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()


async def socks_refusal(port, said, answer):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    came = await asyncio.wait_for(reader.read(), SECONDS)
    assert came == answer, (said, came)
    writer.close()


async def socks5_proxy():
    target = await asyncio.start_server(echo, "127.0.0.1", 0)
    where = target.sockets[0].getsockname()[1]
    async with Server("socks5-proxy") as port:
        ipv4 = bytes((127, 0, 0, 1))
        await asyncio.gather(*(socks_client(port, where, 1, ipv4, random.randbytes(size)) for size in (0, 5, 3000, 70000)))
        await socks_client(port, where, 3, b"\x09127.0.0.1", b"early")
        zeros = bytes((0, 1)) + bytes(6)
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            nobody = held.getsockname()[1].to_bytes(2, "big")
            await socks_refusal(port, b"\x05\x01\x00" b"\x05\x01\x00\x01" + ipv4 + nobody, b"\x05\x00\x05\x05" + zeros)
        await socks_refusal(port, b"\x05\x01\x02", b"\x05\xff")
        await socks_refusal(port, b"\x05\x01\x00\x05\x02\x00\x01" + ipv4 + b"\x00\x50", b"\x05\x00\x05\x07" + zeros)
        await socks_refusal(port, b"\x05\x01\x00\x05\x01\x00\x07\x00", b"\x05\x00\x05\x08" + zeros)
        await socks_refusal(port, b"\x04\x01\x00", b"")
    target.close()


# ---- chat-server ----

async def chat_member(port, name):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(name + b"\r\n")
    assert await asyncio.wait_for(reader.readline(), SECONDS) == name + b" is here\n"
    return reader, writer


async def hear(reader, count):
    return [await asyncio.wait_for(reader.readline(), SECONDS) for _ in range(count)]


async def chat_server():
    """All hear everything in one order, on whatever worker they are; one who leaves is missed, one who never reads is
    sent away and holds nobody up."""
    async with Server("chat-server") as port:
        members = []
        for number in range(20):
            members.append(await chat_member(port, b"m%d" % number))
        for number, (reader, _) in enumerate(members): # who came after oneself
            assert await hear(reader, 19 - number) == [b"m%d is here\n" % other for other in range(number + 1, 20)]
        said = [b"line %d of %d" % (line, number) for line in range(5) for number in range(20)]
        for line in range(5):
            for number, (_, writer) in enumerate(members):
                writer.write(said[line * 20 + number] + b"\n")
        heard = await asyncio.gather(*(hear(reader, 100) for reader, _ in members))
        assert all(one == heard[0] for one in heard)
        assert sorted(heard[0]) == sorted(b"m%d: %s\n" % (index % 20, text) for index, text in enumerate(said))
        for number in range(20): # each said its lines in order
            mine = [text for text in heard[0] if text.startswith(b"m%d:" % number)]
            assert mine == sorted(mine), mine

        _, leaving = members.pop()
        leaving.write_eof()
        assert {line for reader, _ in members for line in await hear(reader, 1)} == {b"m19 has gone\n"}

        for _, writer in members[1:]:
            writer.close()
        await hear(members[0][0], 18)
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", port))
            deaf.sendall(b"deaf\n")
            await hear(members[0][0], 1)
            text, heard = b"x" * 890, 0
            while heard < 40000: # megabytes more than the kernel keeps
                members[0][1].write((text + b"\n") * 100)
                lines = await hear(members[0][0], 100)
                if b"deaf has gone\n" in lines:
                    break
                heard += 100
            else:
                raise AssertionError("who does not read was not sent away")

        for name in (b"", b"n" * 33, b"a\0b"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(name + b"\n")
            try:
                assert await asyncio.wait_for(reader.read(), SECONDS) == b"", name
            except ConnectionResetError:
                pass


for name in ("hash-server", "cache-server", "socks5-proxy", "chat-server"):
    told = subprocess.run([examples / name, "--help"], capture_output=True, text=True, timeout=SECONDS)
    assert told.returncode == 0 and "--workers" in told.stdout, told
asyncio.run(hash_server())
asyncio.run(cache_server())
asyncio.run(socks5_proxy())
asyncio.run(chat_server())
sys.exit(0)
