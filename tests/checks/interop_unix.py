#!/usr/bin/env python3
"""tram's Unix streams against those of others: Python's asyncio both ways round, socat both ways round, and curl.

tram's side is interop_unix.c, built here: an echo, on one loop or on two workers, an HTTP/1.0 answer, and a client.
"""
# tram-check: release-only

import asyncio
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from checks import check, compile_program, failures  # noqa: E402

PATIENCE = 60
SIZE = 300000


class Server:
    """A running server of ours at a path, which it removes when it ends."""

    def __init__(self, program, what, path):
        self.path = path
        self.process = subprocess.Popen([program, what, path], stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        check(self.process.stdout.readline() == "ready\n", "the server says that it is ready")
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
        check(self.process.returncode == 0, f"the server ended with {self.process.returncode}")
        check(not os.path.lexists(self.path), "the server removed its file")


async def ask(path, message):
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(message)
    writer.write_eof()
    answer = await reader.read(-1)
    writer.close()
    await writer.wait_closed()
    return answer


def asyncio_to_tram(program, folder):
    async def many(path):
        messages = [os.urandom(SIZE + number) for number in range(30)]
        answers = await asyncio.wait_for(asyncio.gather(*(ask(path, message) for message in messages)), PATIENCE)
        return answers == messages

    for what in "echo", "workers":
        with Server(program, what, os.path.join(folder, "server")) as server:
            check(asyncio.run(many(server.path)), f"asyncio's clients got their bytes back from {what}")


def tram_to_asyncio(program, folder):
    async def echo(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve(path):
        async with await asyncio.start_unix_server(echo, path):
            client = await asyncio.create_subprocess_exec(program, "client", path.replace("\0", "@"),
                                                          stdout=asyncio.subprocess.PIPE)
            out, _ = await asyncio.wait_for(client.communicate(), PATIENCE)
            return client.returncode, out

    for path in os.path.join(folder, "asyncio"), f"\0tram-interop-{os.getpid()}":
        status, out = asyncio.run(serve(path))
        check(status == 0 and out == b"ok\n", f"our client at asyncio's server {path!r}: {status} {out!r}")


def socat_both_ways(program, folder):
    if not shutil.which("socat"):
        print("skipped: no socat here")
        return
    path, message = os.path.join(folder, "server"), os.urandom(SIZE)
    with Server(program, "echo", path):
        done = subprocess.run(["socat", "-t", "20", "-", f"UNIX-CONNECT:{path}"], input=message, capture_output=True,
                              timeout=PATIENCE, check=False)
        check(done.stdout == message, f"socat got {len(done.stdout)} of {len(message)} bytes right back")
    socat = subprocess.Popen(["socat", "-d", "-d", f"UNIX-LISTEN:{path}", "SYSTEM:cat"], stderr=subprocess.PIPE,
                             text=True)
    while "listening on" not in socat.stderr.readline():
        pass
    done = subprocess.run([program, "client", path], capture_output=True, timeout=PATIENCE, check=False)
    check(done.returncode == 0, f"our client at socat: {done.returncode} {done.stderr!r}")
    socat.communicate(timeout=PATIENCE)


def curl_to_tram(program, folder):
    if not shutil.which("curl"):
        print("skipped: no curl here")
        return
    with Server(program, "http", os.path.join(folder, "server")) as server:
        for target, answer in ("/hello", b"you asked for /hello\n"), ("/", b"you asked for /\n"):
            done = subprocess.run(["curl", "-sS", "--unix-socket", server.path, f"http://localhost{target}"],
                                  capture_output=True, timeout=PATIENCE, check=False)
            check(done.returncode == 0 and done.stdout == answer, f"curl got {done.stdout!r} {done.stderr!r}")


def descriptors_to_tram(program, folder):
    """Ours sends back what came, after it wrote into it."""
    with Server(program, "descriptors", os.path.join(folder, "server")) as server:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(server.path)
            for count in 1, 2, 100, 0, 7:
                files = [tempfile.TemporaryFile() for _ in range(count)]
                socket.send_fds(connection, [b"some ", b"bytes"], [file.fileno() for file in files])
                data, back, _, _ = socket.recv_fds(connection, 100, 253)
                check(data == b"some bytes", f"{count} descriptors: {data!r} came back")
                same = [os.path.sameopenfile(one, file.fileno()) for one, file in zip(back, files)]
                check(same == [True] * count, f"{count} descriptors: {same} came back")
                check(all(os.pread(fd, 9, 0) == b"seen" for fd in back), f"{count} descriptors were written into")
                for file in files:
                    file.close()
                for fd in back:
                    os.close(fd)


def descriptors_from_tram(program, folder):
    """Ours sends three write ends of a pipe, and wants them back."""
    path = os.path.join(folder, "python")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        server.settimeout(PATIENCE)
        giver = subprocess.Popen([program, "giver", path], stdout=subprocess.PIPE)
        connection, _ = server.accept()
        with connection:
            connection.settimeout(PATIENCE)
            data, fds, _, _ = socket.recv_fds(connection, 100, 253)
            check(data == b"three" and len(fds) == 3, f"python got {data!r} and {fds}")
            socket.send_fds(connection, [data], fds)
            for fd in fds:
                os.close(fd)
            out, _ = giver.communicate(timeout=PATIENCE)
        check(giver.returncode == 0 and out == b"ok\n", f"our giver: {giver.returncode} {out!r}")


def main():
    with tempfile.TemporaryDirectory() as folder:
        program = compile_program("interop_unix", folder)
        for test in (asyncio_to_tram, tram_to_asyncio, socat_both_ways, curl_to_tram, descriptors_to_tram,
                     descriptors_from_tram):
            try:
                test(program, folder)
            except Exception as error:  # pylint: disable=broad-except
                check(False, f"{test.__name__}: {type(error).__name__}: {error}")
            print(test.__name__, "ok" if not failures else "")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
