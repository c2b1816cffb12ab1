#!/usr/bin/env python3
"""What an echo and a short connection cost, counted, is not more than bench/counts.json allows.

The server and the load of the bench are compiled here against the built library; bench/counts does the rest. Nothing
is timed, so a busy machine changes nothing but how long it takes.
"""
# tram-check: release-only

import os
import pathlib
import subprocess
import sys
import tempfile

BUILD = pathlib.Path(os.environ.get("TRAM_BUILD_DIR", "build/release")).resolve()
SOURCE = pathlib.Path(os.environ.get("TRAM_SOURCE_DIR") or pathlib.Path(__file__).parents[2]).resolve()
SKIPPED = 77


def works(*command):
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def compile_program(source, program, *libraries):
    """Without debug information: valgrind cannot read that of every compiler."""
    subprocess.run([os.environ.get("CC", "cc"), "-std=c11", "-O2", "-D_GNU_SOURCE", "-I", SOURCE / "include", "-o", program,
                    SOURCE / "bench" / source, *libraries, "-Wl,--strip-debug"], check=True)


def main():
    if not works("valgrind", "-q", "--tool=none", "true"):
        print("skipped: valgrind does not work here")
        return SKIPPED
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "servers").mkdir()
        compile_program("load.c", folder / "load")
        compile_program("servers/tram.c", folder / "servers/tram", BUILD / "libtram.a", "-pthread", "-lm")
        return subprocess.run([sys.executable, SOURCE / "bench/counts", "--check", "--programs", folder],
                              check=False).returncode


sys.exit(main())
