#!/usr/bin/env python3
# tram-check: release-only
"""The shared library shows the public functions and nothing else.

The same for libtram-tls.so, where it is built: its list is docs/abi/symbols-tls.txt, and its header tram/tls.h. What it
calls of libtram beside the public functions has a version of its own (cmake/tram.map), and is no more than it calls.

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
PRIVATE = "TRAM_PRIVATE"
ONLY_CHECKED = {"tram__assert_failed"} # wanted by builds with TRAM_CHECKED
TLS_HEADERS = {"tls.h"}


def dynamic(library, *options):
    output = subprocess.run(["nm", "-D", "-P", *options, BUILD / library],
                            check=True, capture_output=True, text=True).stdout
    for line in output.splitlines():
        symbol, kind = line.split()[:2]
        if kind != "A": # the name of the version itself
            yield symbol.partition("@")[0], symbol.rpartition("@")[2]


def exported(library):
    return {symbol for symbol, version in dynamic(library, "--defined-only") if version != PRIVATE}


def private_problems():
    """What libtram shows to libtram-tls alone is what that calls."""
    shown = {symbol for symbol, version in dynamic("libtram.so", "--defined-only") if version == PRIVATE}
    wanted = {symbol for symbol, version in dynamic("libtram-tls.so", "--undefined-only") if version == PRIVATE}
    listed = set(re.findall(r"\btram__\w+", (ROOT / "cmake/tram.map").read_text().partition(PRIVATE)[2]))
    return [f"{symbol} is shown to libtram-tls, which does not call it" for symbol in sorted(shown - wanted - ONLY_CHECKED)] + \
        [f"{symbol} is listed in cmake/tram.map and not there" for symbol in sorted(listed - shown)]


def declared(headers):
    """The functions and objects that these public headers declare, inline ones left out."""
    unit = "".join(f"#include <tram/{header.name}>\n" for header in headers)
    text = subprocess.run([os.environ.get("CC", "cc"), "-std=c11", "-D_GNU_SOURCE", "-E", "-I", ROOT / "include",
                           "-x", "c", "-"], input=unit, check=True, capture_output=True, text=True).stdout
    # Only the lines that come from these headers.
    lines, ours = [], False
    for line in text.splitlines():
        marker = re.match(r'# \d+ "([^"]*)"', line)
        if marker:
            path = pathlib.PurePath(marker.group(1))
            ours = "/include/tram/" in marker.group(1) and path.name in {header.name for header in headers}
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


def check(library, path, headers):
    """How many are exported, and what is wrong with them."""
    have, want = exported(library), declared(headers)
    listed = path.relative_to(ROOT)
    if "--update" in sys.argv:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(symbol + "\n" for symbol in sorted(have)))
    problems = []
    for symbol in sorted(have):
        if not re.fullmatch(r"tram_[a-z][a-z0-9_]*", symbol):
            problems.append(f"{symbol} is exported and is no public name")
        elif symbol not in want:
            problems.append(f"{symbol} is exported and in no public header")
    for symbol in sorted(want - have):
        problems.append(f"{symbol} is declared in a public header and not exported (TRAM_API? not written?)")
    if not path.is_file():
        print(f"no {listed} yet; --update writes it")
        return len(have), problems
    committed = set(path.read_text().split())
    for symbol in sorted(have - committed):
        problems.append(f"{symbol} is new: not in {listed} (--update writes it)")
    for symbol in sorted(committed - have):
        problems.append(f"{symbol} is gone: users of the library need it")
    return len(have), problems


headers = sorted((ROOT / "include/tram").glob("*.h"))
count, problems = check("libtram.so", LIST, [header for header in headers if header.name not in TLS_HEADERS])
if (BUILD / "libtram-tls.so").is_file():
    more, found = check("libtram-tls.so", LIST.with_name("symbols-tls.txt"),
                        [header for header in headers if header.name in TLS_HEADERS])
    count += more
    problems += found + private_problems()
for problem in problems:
    print(problem)
print(f"{count} exported: {len(problems)} problems")
sys.exit(1 if problems else 0)
