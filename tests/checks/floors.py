#!/usr/bin/env python3
"""Nothing lower includes, calls or names anything higher: protocols -> transports -> core.

Reads the includes of every source file, and, where TRAM_BUILD_DIR holds a build, the symbols of the
objects: a call upward that was declared by hand is found too. Public headers count to the floor whose
folder has a file of the same name (include/tram/server.h belongs to transports/server.c).

No objects call each other in a circle.
"""

import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(os.environ.get("TRAM_SOURCE_DIR") or pathlib.Path(__file__).parents[2]).resolve()
FLOORS = ["core", "transports", "protocols"] # from the ground up
PROGRAMS = ["tools", "examples", "bench"]
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)

problems = []


def name(path):
    return str(path.relative_to(ROOT))


def sources(folder):
    return sorted(path for path in (ROOT / folder).rglob("*") if path.suffix in (".c", ".h"))


def text_of(path):
    return COMMENT.sub(lambda match: "\n" * match.group().count("\n"), path.read_text())


def includes(path):
    """(spelling, resolved path inside this tree or None) of each include."""
    for quote, spelling in INCLUDE.findall(text_of(path)):
        if quote == "<":
            found = ROOT / "include" / spelling if spelling.startswith("tram/") else None
        else:
            places = (path.parent / spelling, *(ROOT / root / spelling for root in ("", "tools", "tests")))
            found = next((place.resolve() for place in places if place.is_file()), None)
            if found is None:
                problems.append(f'{name(path)}: "{spelling}" is no file of this tree')
        if found is not None and not found.is_file():
            problems.append(f"{name(path)}: <{spelling}> does not exist")
            found = None
        yield spelling, found


def floor_of_public(path):
    for floor in FLOORS:
        if any((ROOT / floor / (path.stem + suffix)).is_file() for suffix in (".c", ".h")):
            return floor
    return None


def floor_of(path):
    top = path.relative_to(ROOT).parts[0]
    return floor_of_public(path) if top == "include" else top


def check_includes():
    count = 0
    for path in (path for floor in FLOORS for path in sources(floor)):
        here = path.relative_to(ROOT).parts[0]
        for spelling, target in includes(path):
            count += 1
            if here == "core" and spelling.startswith("openssl/"):
                problems.append(f"{name(path)}: core includes <{spelling}>")
            if target is None:
                continue
            if target == ROOT / "include/tram/tram.h":
                problems.append(f"{name(path)}: includes <tram/tram.h>, which is every floor at once")
                continue
            there = floor_of(target)
            if there is None:
                continue # a public header that belongs to no one file
            if there not in FLOORS[:FLOORS.index(here) + 1]:
                problems.append(f"{name(path)}: {here} includes {spelling} of {there}")
    for path in sources("include"):
        for spelling, target in includes(path):
            count += 1
            if not spelling.startswith("tram/") and target is not None:
                problems.append(f"{name(path)}: a public header includes {spelling}, which is not installed")
    for folder in PROGRAMS:
        for path in sources(folder):
            for spelling, target in includes(path):
                count += 1
                if target is None:
                    continue
                top = target.relative_to(ROOT).parts[0]
                if top not in ("include", folder):
                    problems.append(f"{name(path)}: {folder} uses public headers only, not {spelling}")
            for word in re.findall(r"\btram__\w+", text_of(path)):
                problems.append(f"{name(path)}: {word} is internal to the library")
    return count


def check_include_circles():
    graph = {path: [target for _, target in includes(path) if target is not None]
             for folder in FLOORS + ["include", "tests/support"] for path in sources(folder)}
    done, trail = set(), []

    def visit(path):
        if path in trail:
            circle = trail[trail.index(path):] + [path]
            problems.append("include circle: " + " -> ".join(name(member) for member in circle))
            return
        if path in done or path not in graph:
            return
        trail.append(path)
        for target in graph[path]:
            visit(target)
        trail.pop()
        done.add(path)

    for path in graph:
        visit(path)


def reaches(calls, start, end):
    """True if calls lead from one object to the other."""
    seen, pending = {start}, [start]
    while pending:
        for there in calls.get(pending.pop(), ()):
            if there == end:
                return True
            if there not in seen:
                seen.add(there)
                pending.append(there)
    return False


def check_objects(build):
    """What each object defines and what it wants, from nm."""
    folder = build / "CMakeFiles/tram-objects.dir"
    objects = [path for floor in FLOORS for path in sorted((folder / floor).glob("*.o"))
               if (ROOT / floor / path.name.removesuffix(".o")).is_file()]
    defined, wanted = {}, {}
    for path in objects:
        output = subprocess.run(["nm", "-P", "-g", path], check=True, capture_output=True, text=True).stdout
        for line in output.splitlines():
            symbol, kind = line.split()[:2]
            if not symbol.startswith("tram_"):
                continue
            if kind == "U":
                wanted.setdefault(path, set()).add(symbol)
            elif kind not in "wv":
                defined[symbol] = path
    edges = {}
    for path, symbols in wanted.items():
        for symbol in symbols:
            target = defined.get(symbol)
            if target is None:
                continue
            here, there = path.parent.name, target.parent.name
            if FLOORS.index(there) > FLOORS.index(here):
                problems.append(f"{here}/{path.stem}: {here} calls {symbol} of {there}/{target.stem}")
            edges.setdefault((path, target), set()).add(symbol)
    calls = {}
    for here, there in edges:
        calls.setdefault(here, set()).add(there)
    for (here, there), symbols in sorted(edges.items()):
        if reaches(calls, there, here):
            problems.append(f"circle: {here.parent.name}/{here.stem} wants {', '.join(sorted(symbols))} of "
                            f"{there.parent.name}/{there.stem}, which comes back to it")
    return len(objects)


count = check_includes()
check_include_circles()
objects = 0
build_dir = os.environ.get("TRAM_BUILD_DIR")
if build_dir:
    objects = check_objects(pathlib.Path(build_dir))
for problem in dict.fromkeys(problems):
    print(problem)
print(f"{count} includes, {objects} objects: {len(set(problems))} problems")
sys.exit(1 if problems else 0)
