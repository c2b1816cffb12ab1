#!/usr/bin/env python3
# tram-check: release-only
"""The libraries have the probes that docs/probes.md tells of, with as many arguments, and no others; or none at all,
where it was built without. Skipped (77) in that case, and where there is no readelf."""

import collections
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(os.environ.get("TRAM_SOURCE_DIR") or pathlib.Path(__file__).parents[2]).resolve()
BUILD = pathlib.Path(os.environ.get("TRAM_BUILD_DIR") or ROOT / "build/release")


def documented():
    """{name: number of arguments}; parentheses in a cell explain an argument."""
    table = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", (ROOT / "docs/probes.md").read_text(), re.M)
    return {name: len(re.sub(r"\([^)]*\)", "", arguments).split(",")) for name, arguments in table}


def present(library):
    """{name: the numbers of arguments of its places}"""
    notes = subprocess.run(["readelf", "--notes", "--wide", library], check=True, capture_output=True, text=True,
                           env={**os.environ, "LC_ALL": "C"}).stdout
    found = collections.defaultdict(set)
    for name, arguments in re.findall(r"Provider: tram\n\s+Name: (\w+)\n.*\n\s+Arguments:(.*)", notes):
        # "8@%rbx -4@-16(%rsp) 8@x0": an address may have blanks in it, as "[sp, 16]".
        found[name].add(len(re.findall(r"(?:^| )-?\d+f?@", arguments)))
    return found


if not shutil.which("readelf"):
    print("there is no readelf (binutils)")
    sys.exit(77)
found = present(BUILD / "libtram.so")
if (BUILD / "libtram-tls.so").exists():
    found.update(present(BUILD / "libtram-tls.so"))
if "TRAM_HAS_USDT:INTERNAL=ON" not in (BUILD / "CMakeCache.txt").read_text():
    if found:
        print("built without probes, and yet there are", *sorted(found))
        sys.exit(1)
    print("built without probes")
    sys.exit(77)

problems = []
wanted = documented()
if not (BUILD / "libtram-tls.so").exists():
    wanted = {name: arguments for name, arguments in wanted.items() if not name.startswith("tls_")}
for name in sorted(wanted.keys() | found.keys()):
    if name not in found:
        problems.append(f"{name} is in docs/probes.md and not in the library")
    elif name not in wanted:
        problems.append(f"{name} is in the library and not in docs/probes.md")
    elif found[name] != {wanted[name]}:
        problems.append(f"{name} has {sorted(found[name])} arguments, and {wanted[name]} in docs/probes.md")
for problem in problems:
    print(problem)
print(f"{len(found)} probes: {len(problems)} problems")
sys.exit(1 if problems else 0)
