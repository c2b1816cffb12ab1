#!/usr/bin/env python3
# tram-check: release-only
"""checks/floors fails where an arrow goes up or in a circle: each is drawn into a copy of the tree."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(os.environ.get("TRAM_SOURCE_DIR") or pathlib.Path(__file__).parents[2]).resolve()
FOLDERS = ["core", "transports", "protocols", "include", "tools", "examples", "bench", "tests/support"]
# What is wrong, where, the line that is added, and what must be printed.
WRONG = [
    ("a floor above", "core/loop/loop.c", '#include "transports/base/transport.h"', "core includes"),
    ("a circle of files", "core/base/memory.h", '#include "core/base/pool.h"', "include circle"),
    ("a circle of folders", "core/base/memory.c", '#include "core/loop/loop.h"', "circle of folders"),
    ("everything", "transports/stream/stream.c", "#include <tram/tram.h>", "every floor at once"),
    ("a private header", "include/tram/loop.h", '#include "core/loop/loop.h"', "is not installed"),
    ("a folder that is not in docs/architecture.md", "transports/stowaway/file.c", "", "docs/architecture.md"),
]


def floors(tree):
    environment = {key: value for key, value in os.environ.items() if key != "TRAM_BUILD_DIR"}
    environment["TRAM_SOURCE_DIR"] = str(tree)
    return subprocess.run([sys.executable, ROOT / "tests/checks/floors.py", "--quiet"], env=environment,
                          capture_output=True, text=True, check=False)


problems = 0
with tempfile.TemporaryDirectory() as scratch:
    tree = pathlib.Path(scratch).resolve()
    for folder in FOLDERS:
        if (ROOT / folder).is_dir():
            shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tree / "docs").mkdir()
    shutil.copy(ROOT / "docs/architecture.md", tree / "docs")
    before = floors(tree)
    if before.returncode:
        print(f"as it is:\n{before.stdout}{before.stderr}")
        problems += 1
    for what, place, line, word in WRONG:
        path = tree / place
        kept = path.read_text() if path.is_file() else None
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{line}\n{kept or ''}")
        after = floors(tree)
        if after.returncode != 1 or word not in after.stdout:
            print(f"{what}, in {place}, was not noticed:\n{after.stdout}{after.stderr}")
            problems += 1
        if kept is None:
            shutil.rmtree(path.parent)
        else:
            path.write_text(kept)
print(f"{len(WRONG)} wrong arrows: {problems} were not noticed")
sys.exit(1 if problems else 0)
