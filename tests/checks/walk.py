#!/usr/bin/env python3
"""The files of the library that an event passes on its way are few.

walk.c sends events through the library under callgrind. A way is every line of the library that runs for the event and
does not run in a turn of the loop with nothing to do; what counts is the files of these lines, with the instructions in
each. A function of a header that is inlined counts as that header, in which it is written; a header and the source
beside it (stack.h and stack.c) are one file in two parts, and count once. System calls with the table that leads to them
(sys.c, a jump each), the C library and the protocol are not the library's. Everything is warm: what is made at first use
was made.
"""
# tram-check: release-only

import collections
import os
import pathlib
import re
import subprocess
import sys
import tempfile

BUILD = pathlib.Path(os.environ.get("TRAM_BUILD_DIR", "build/release")).resolve()
SOURCE = pathlib.Path(os.environ.get("TRAM_SOURCE_DIR") or pathlib.Path(__file__).parents[2]).resolve()
SKIPPED = 77
TURN = "turn"  # what a turn with nothing to do passes, and so every way
SYSTEM_CALLS = "core/system/sys"
# A connection is the one that everything is made for: some 490 instructions from the kernel's event to the return of
# connection_made. Eight files do something for it that no other knows how to do. Five are steps of its way: the poller
# accepts it and watches its descriptor (epoll.c, 139 instructions); the server counts it (server.c, 51); the one place
# that calls protocols asks the factory, and later connection_made (protocol_adapter.c, 64); what all kinds of transports
# share begins its life (lifecycle.c, 130); the loop gives it a place among its ios, by which events and the end of the
# loop find it, and runs connection_made in its turn (loop.h, 57). Three are what all of the library builds on, and have
# 54 instructions: connection_made waits in a list, from which a close takes it off (list.h), the memory comes from a pool
# (pool.h), and the place is a slot (slots.h). Fewer would be worse:
# - without list.h the ready queue would need links of its own that an entry can leave at any time: what list.h does for
#   all of the library, a second time in the loop;
# - without pool.h memory.h is there in its place, and a short connection takes 1,640 instructions instead of 1,265 and
#   two calls of malloc and free (tried). A pool that is one with the places of the ios has no way out: whoever holds a
#   transport has its memory still when its place is another's;
# - without slots.h the loop has a table of its own, beside those of handles and of addresses, as it had;
# - of the five steps no two can be one file: six kinds of transports begin without a server; what a protocol answers is
#   judged in one place, also for bytes, where nothing begins; the poller is one of several; and any two of them have
#   more than 750 lines, where 500 are the most.
MOST = {"received": 4, "written": 4, "posted": 4, "received through a layer": 8, "written through a layer": 7,
        "accepted": 8}


def works(*command):
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def run(folder):
    program = folder / "walk"
    subprocess.run([os.environ.get("CC", "cc"), "-std=c11", "-O2", "-D_GNU_SOURCE", "-I", SOURCE / "include", "-I", SOURCE,
                    "-o", program, SOURCE / "tests/checks/walk.c", BUILD / "libtram.a", "-pthread", "-lm"], check=True)
    subprocess.run(["valgrind", "-q", "--tool=callgrind", "--compress-pos=no", "--compress-strings=no",
                    f"--callgrind-out-file={folder}/out", program], check=True)


def read(dump):
    """Its name, and the instructions of every (file, line) of the library."""
    name, file, lines, is_call = None, None, collections.Counter(), False
    for text in dump.read_text().splitlines():
        if text.startswith("desc: Trigger: Client Request: "):
            name = text.removeprefix("desc: Trigger: Client Request: ")
        elif re.match("f[lie]=", text):
            found = re.search(r"\b(?:core|transports|protocols)/[^/]+/[^/]+\.[ch]$", text)
            file = found and found.group()
        elif text.startswith("calls="):
            is_call = True
        elif found := re.fullmatch(r"(\d+) (\d+)", text):
            if file and not is_call:
                lines[file, int(found.group(1))] += int(found.group(2))
            is_call = False
    return name, lines


def files_of(way):
    """{file without its suffix: [suffixes, instructions]}"""
    files = {}
    for (file, _), count in sorted(way.items()):
        stem, suffix = file.rsplit(".", 1)
        entry = files.setdefault(stem, [set(), 0])
        entry[0].add("." + suffix)
        entry[1] += count
    return files


def main():
    if not works("valgrind", "-q", "--tool=none", "true"):
        print("skipped: valgrind does not work here")
        return SKIPPED
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        run(folder)
        dumps = dict(filter(lambda dump: dump[0], map(read, folder.glob("out.*"))))
    turn = dumps.pop(TURN)
    bad = MOST.keys() ^ dumps.keys()
    print(f"a turn with nothing to do: {len(files_of(turn))} files, which every way passes")
    for name, most in MOST.items():
        files = files_of({place: count for place, count in dumps.get(name, {}).items() if place not in turn})
        own = len(files.keys() - {SYSTEM_CALLS})
        print(f"{name}: {own} files (at most {most})")
        for stem, (suffixes, count) in files.items():
            print(f"    {stem}{' '.join(sorted(suffixes))}: {count} instructions{', not counted' * (stem == SYSTEM_CALLS)}")
        if not 0 < own <= most:
            bad.add(name)
    for name in bad:
        print(f"error: {name}: not within its bounds")
    return bool(bad)


sys.exit(main())
