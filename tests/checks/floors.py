#!/usr/bin/env python3
# tram-check: release-only
"""Nothing lower includes, calls or names anything higher: protocols -> transports -> core.

Reads the includes of every source file, and, where TRAM_BUILD_DIR holds a build, the symbols of the
objects: a call upward that was declared by hand is found too. Public headers count to the floor whose
folder has a file of the same name (include/tram/server.h belongs to transports/server/server.c).

No objects call each other in a circle.
"""

import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(os.environ.get("TRAM_SOURCE_DIR") or pathlib.Path(__file__).parents[2]).resolve()
FLOORS = ["core", "transports", "protocols"] # from the ground up
MOST_ENTRIES = {"core": 8, "transports": 16}
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
        if any(True for _ in (ROOT / floor).rglob(path.stem + ".[ch]")):
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


def folder_of(path):
    """core/loop of core/loop/loop.c; files that lie directly on a floor would be in no folder."""
    parts = path.parts
    if len(parts) < 3:
        problems.append(f"{path}: a source file lies in a folder of its floor")
    return "/".join(parts[:2])


def object_calls(build):
    """{(source, source): symbols}: who wants what of whom, from nm. Sources are paths below ROOT."""
    folders = [build / f"CMakeFiles/{target}.dir" for target in ("tram-objects", "tram-tls-objects")]
    objects = [(path, path.relative_to(folder).with_suffix("")) for folder in folders for floor in FLOORS
               for path in sorted((folder / floor).rglob("*.o"))]
    objects = [(path, source) for path, source in objects if (ROOT / source).is_file()]
    defined, wanted = {}, {}
    sources_of = {str(path): source for path, source in objects}
    command = ["nm", "-A", "-P", "-g", *sources_of] if objects else ["true"]
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        # object: symbol kind value size
        path, _, rest = line.rpartition(": ")
        source, (symbol, kind) = sources_of[path], rest.split()[:2]
        if not symbol.startswith("tram_"):
            continue
        if kind == "U":
            wanted.setdefault(source, set()).add(symbol)
        elif kind not in "wv":
            defined[symbol] = source
    edges = {}
    for source, symbols in wanted.items():
        for symbol in symbols:
            if symbol in defined:
                edges.setdefault((source, defined[symbol]), set()).add(symbol)
    return edges, len(objects)


def check_objects(edges):
    calls = {}
    for (here, there), symbols in edges.items():
        calls.setdefault(here, set()).add(there)
        if FLOORS.index(there.parts[0]) > FLOORS.index(here.parts[0]):
            problems.append(f"{here}: {here.parts[0]} calls {', '.join(sorted(symbols))} of {there}")
    for (here, there), symbols in sorted(edges.items()):
        if reaches(calls, there, here):
            problems.append(f"circle: {here} wants {', '.join(sorted(symbols))} of {there}, which comes back to it")


def folder_arrows(edges):
    """{(folder, folder): {why}} of includes and calls between folders."""
    arrows = {}
    for path in (path for floor in FLOORS for path in sources(floor)):
        here = path.relative_to(ROOT)
        for spelling, target in includes(path):
            if target is not None and target.relative_to(ROOT).parts[0] in FLOORS:
                there = target.relative_to(ROOT)
                arrows.setdefault((folder_of(here), folder_of(there)), set()).add(f"{here} includes {spelling}")
    for (here, there), symbols in edges.items():
        arrows.setdefault((folder_of(here), folder_of(there)), set()).add(f"{here} calls {min(symbols)}")
    return {pair: why for pair, why in arrows.items() if pair[0] != pair[1]}


def check_folders(arrows):
    below = {}
    for here, there in arrows:
        below.setdefault(here, set()).add(there)
    for (here, there), why in sorted(arrows.items()):
        if reaches(below, there, here):
            problems.append(f"circle of folders: {here} stands on {there} ({'; '.join(sorted(why)[:3])}), "
                            "which comes back to it")


def check_entries():
    """A floor is taken in at one look."""
    for floor, most in MOST_ENTRIES.items():
        count = sum(1 for _ in (ROOT / floor).iterdir())
        if count > most:
            problems.append(f"{floor}/ has {count} entries, more than {most}")


def check_table():
    """docs/architecture.md lists the folders: `core/base`, or `transports/stream`, `datagram`, in one row."""
    rows = re.findall(r"^\| (`[^|]*`) \|", (ROOT / "docs/architecture.md").read_text(), re.M)
    listed = set()
    for row in rows:
        floor = None
        for entry in re.findall(r"`([^`]*)`", row):
            floor = entry.split("/")[0] if "/" in entry else floor
            listed.add(entry if "/" in entry else f"{floor}/{entry}")
    present = {folder_of(path.relative_to(ROOT)) for floor in FLOORS for path in sources(floor)}
    listed = {folder for folder in listed if folder.split("/")[0] in FLOORS}
    for folder in sorted(present ^ listed):
        problems.append(f"docs/architecture.md: {folder} is " + ("not listed" if folder in present else "no folder"))


def draw(arrows):
    folders = sorted({folder_of(path.relative_to(ROOT)) for floor in FLOORS for path in sources(floor)})
    below = {folder: {there for here, there in arrows if here == folder} for folder in folders}
    placed = []
    while len(placed) < len(folders):
        ready = [folder for folder in folders if folder not in placed and below[folder] <= set(placed)]
        if not ready:
            return # a circle: reported
        ready.sort(key=lambda folder: (FLOORS.index(folder.split("/")[0]), folder))
        placed.append(ready[0])
    for folder in placed:
        print(f"{folder}: {', '.join(sorted(below[folder])) or 'stands on nothing'}")


count = check_includes()
check_include_circles()
check_entries()
check_table()
edges, objects = {}, 0
build_dir = os.environ.get("TRAM_BUILD_DIR")
if build_dir:
    edges, objects = object_calls(pathlib.Path(build_dir))
    check_objects(edges)
arrows = folder_arrows(edges)
check_folders(arrows)
if "--quiet" not in sys.argv:
    draw(arrows)
for problem in dict.fromkeys(problems):
    print(problem)
print(f"{count} includes, {objects} objects, {len(arrows)} arrows between folders: {len(set(problems))} problems")
sys.exit(1 if problems else 0)
