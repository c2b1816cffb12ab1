#!/usr/bin/env python3
"""tram's pipe transports against those of Python's asyncio, as subprocess and over FIFOs, and against a shell's pipes.

tram's side is interop_pipe.c, built here: what comes out of one pipe goes into another. The other way round, tram as
the parent of an asyncio that reads and writes pipes, is test_asyncio_echoes_through_pipes of test_process_subprocess_start.c.
"""
# tram-check: release-only

import asyncio
import os
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from checks import check, compile_program, failures  # noqa: E402

PATIENCE = 60
SIZE = 3000000


async def from_parent_to_parent(program):
    """asyncio's parent writes into our standard input and reads our standard output."""
    message = os.urandom(SIZE)
    child = await asyncio.create_subprocess_exec(program, "-", "-", stdin=asyncio.subprocess.PIPE,
                                                 stdout=asyncio.subprocess.PIPE)
    answer, _ = await asyncio.wait_for(child.communicate(message), PATIENCE)
    check(answer == message, f"{len(answer)} of {SIZE} bytes came back right to asyncio's parent")
    check(child.returncode == 0, f"our child ended with {child.returncode}")


class Reader(asyncio.Protocol):
    """Slow at first, so that the writer has to wait."""

    def __init__(self):
        self.data = bytearray()
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        transport.pause_reading()
        asyncio.get_running_loop().call_later(0.2, transport.resume_reading)

    def data_received(self, data):
        self.data += data

    def connection_lost(self, error):
        self.lost.set_result(error)


async def over_fifos(program, folder):
    """asyncio's write pipe, a FIFO, us, a FIFO, asyncio's read pipe."""
    loop = asyncio.get_running_loop()
    there, back = os.path.join(folder, "there"), os.path.join(folder, "back")
    os.mkfifo(there)
    os.mkfifo(back)
    child = await asyncio.create_subprocess_exec(program, there, back)
    into, out_of = await asyncio.gather(asyncio.to_thread(os.open, there, os.O_WRONLY),
                                        asyncio.to_thread(os.open, back, os.O_RDONLY))
    message = os.urandom(SIZE)
    _, reader = await loop.connect_read_pipe(Reader, os.fdopen(out_of, "rb", 0))
    transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(into, "wb", 0))
    transport.write(message)
    transport.write_eof()
    check(await asyncio.wait_for(reader.lost, PATIENCE) is None, "asyncio's read pipe ended without an error")
    check(bytes(reader.data) == message, f"{len(reader.data)} of {SIZE} bytes came right over the FIFOs")
    check(await asyncio.wait_for(child.wait(), PATIENCE) == 0, f"ours at the FIFOs ended with {child.returncode}")


def in_a_shell(program):
    done = subprocess.run(f"seq 200000 | {program} - - | {program} - - | sha256sum; seq 200000 | sha256sum", shell=True,
                          capture_output=True, text=True, timeout=PATIENCE, check=False)
    sums = done.stdout.split("\n")
    check(done.returncode == 0 and sums[0] == sums[1], f"in a shell: {done.stdout!r} {done.stderr!r}")
    # A reader that goes is noticed, and is an error where bytes are lost.
    done = subprocess.run(["bash", "-c", f"yes | {program} - - | head -1; echo ${{PIPESTATUS[1]}}"],
                          capture_output=True, text=True, timeout=PATIENCE, check=False)
    check(done.stdout in ("y\n1\n", "y\n0\n"), f"a reader that goes: {done.stdout!r} {done.stderr!r}")


def main():
    with tempfile.TemporaryDirectory() as folder:
        program = compile_program("interop_pipe", folder)
        for name, test in (("asyncio's subprocess", lambda: asyncio.run(from_parent_to_parent(program))),
                           ("FIFOs", lambda: asyncio.run(over_fifos(program, folder))),
                           ("a shell", lambda: in_a_shell(program))):
            before = len(failures)
            try:
                test()
            except Exception as error:  # pylint: disable=broad-except
                check(False, f"{name}: {type(error).__name__}: {error}")
            print(name, "ok" if len(failures) == before else "FAILED")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
