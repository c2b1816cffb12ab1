#!/usr/bin/env python3
# tram-check: release-only
"""The shared library shows the public functions and nothing else.

Each exported symbol is called tram_<name> (tram__<name> is internal) and declared in a public header;
each function that a public header declares is exported; and the list is docs/abi/symbols.txt, so that a
change of the interface is a change that a reviewer sees. After a wanted change:

    TRAM_BUILD_DIR=build/release tests/checks/symbols.py --update
"""

import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(os.environ.get("TRAM_SOURCE_DIR") or pathlib.Path(__file__).parents[2]).resolve()
BUILD = pathlib.Path(os.environ.get("TRAM_BUILD_DIR") or ROOT / "build/release")
LIST = ROOT / "docs/abi/symbols.txt"


def exported():
    output = subprocess.run(["nm", "-D", "-P", "--defined-only", BUILD / "libtram.so"],
                            check=True, capture_output=True, text=True).stdout
    symbols = set()
    for line in output.splitlines():
        symbol, kind = line.split()[:2]
        if kind != "A": # the name of the version itself
            symbols.add(symbol.split("@")[0])
    return symbols


def declared():
    """The functions and objects that the public headers declare, inline ones left out."""
    headers = sorted((ROOT / "include/tram").glob("*.h"))
    unit = "".join(f"#include <tram/{header.name}>\n" for header in headers)
    text = subprocess.run([os.environ.get("CC", "cc"), "-std=c11", "-D_GNU_SOURCE", "-E", "-I", ROOT / "include",
                           "-x", "c", "-"], input=unit, check=True, capture_output=True, text=True).stdout
    # Only the lines that come from tram's own headers.
    lines, ours = [], False
    for line in text.splitlines():
        marker = re.match(r'# \d+ "([^"]*)"', line)
        if marker:
            ours = "/include/tram/" in marker.group(1)
        elif ours:
            lines.append(line)
    text = re.sub(r'"(?:\\.|[^"\\])*"', '""', "\n".join(lines))
    text = re.sub(r"__attribute__\s*\(\(.*?\)\)", " ", text, flags=re.S)
    while True: # bodies of inline functions, members of structs
        flat = re.sub(r"\{[^{}]*\}", " BODY;", text)
        if flat == text:
            break
        text = flat
    names = set()
    for declaration in text.split(";"):
        if re.search(r"\b(typedef|static|_Static_assert)\b", declaration) or "BODY" in declaration:
            continue
        match = re.search(r"\b(tram_\w+)\s*\(", declaration) or \
            re.search(r"\bextern\b.*\b(tram_\w+)\s*(?:\[.*\])?\s*$", declaration, re.S)
        if match:
            names.add(match.group(1))
    return names


have, want = exported(), declared()
if "--update" in sys.argv:
    LIST.parent.mkdir(parents=True, exist_ok=True)
    LIST.write_text("".join(symbol + "\n" for symbol in sorted(have)))

problems = []
for symbol in sorted(have):
    if not re.fullmatch(r"tram_[a-z][a-z0-9_]*", symbol):
        problems.append(f"{symbol} is exported and is no public name")
    elif symbol not in want:
        problems.append(f"{symbol} is exported and in no public header")
for symbol in sorted(want - have):
    problems.append(f"{symbol} is declared in a public header and not exported (TRAM_API? not written?)")
if not LIST.is_file():
    print(f"no {LIST.relative_to(ROOT)} yet; --update writes it")
else:
    committed = set(LIST.read_text().split())
    for symbol in sorted(have - committed):
        problems.append(f"{symbol} is new: not in {LIST.relative_to(ROOT)} (--update writes it)")
    for symbol in sorted(committed - have):
        problems.append(f"{symbol} is gone: users of the library need it")
for problem in problems:
    print(problem)
print(f"{len(have)} exported, {len(want)} declared: {len(problems)} problems")
sys.exit(1 if problems else 0)
