"""What checks in Python share."""

import os
import pathlib
import subprocess
import sys

SOURCE = pathlib.Path(os.environ.get("TRAM_SOURCE_DIR") or pathlib.Path(__file__).parents[2]).resolve()
BUILD = pathlib.Path(os.environ.get("TRAM_BUILD_DIR") or SOURCE / "build/release").resolve()

failures = []


def check(condition, text):
    """Says and remembers what is wrong."""
    if not condition:
        failures.append(text)
        print("FAILED:", text, file=sys.stderr, flush=True)


def compile_program(name, folder, *libraries):
    """The program of tests/checks/<name>.c, over the shared library of the build, and others of it ("-ltram-tls")."""
    program = pathlib.Path(folder) / name
    subprocess.run([os.environ.get("CC", "cc"), "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror",
                    f"-I{SOURCE}/include", SOURCE / f"tests/checks/{name}.c", "-o", program, f"-L{BUILD}",
                    f"-Wl,-rpath,{BUILD}", *libraries, "-ltram", "-lpthread"], check=True)
    return program
