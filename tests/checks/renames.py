#!/usr/bin/env python3
# tram-check: release-only
"""docs/renames.txt is true: no old name is left in include/, and each new one is there."""

import os
import pathlib
import re
import sys

ROOT = pathlib.Path(os.environ.get("TRAM_SOURCE_DIR") or pathlib.Path(__file__).parents[2]).resolve()
COMMENT = re.compile(r"/\*.*?\*/", re.S)

present = {}
for path in sorted((ROOT / "include").rglob("*.h")):
    for word in re.findall(r"\w+", COMMENT.sub("", path.read_text())):
        present.setdefault(word, path.name)

problems, lines = 0, 0
for line in (ROOT / "docs/renames.txt").read_text().splitlines():
    if not line or line.startswith("#"):
        continue
    lines += 1
    old, new = line.split()[:2]
    if old != new and old in present:
        problems += 1
        print(f"{old} is still in {present[old]}")
    if new not in present:
        problems += 1
        print(f"{new}, which {old} has become, is in no header")
print(f"{lines} renames: {problems} problems")
sys.exit(1 if problems or not lines else 0)
