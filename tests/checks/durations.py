#!/usr/bin/env python3
# tram-check: release-only
"""A duration is added to a time by time_after() alone, which never wraps: no other sum of the two in the library."""

import os
import pathlib
import re
import sys

ROOT = pathlib.Path(os.environ.get("TRAM_SOURCE_DIR") or pathlib.Path(__file__).parents[2]).resolve()
FOLDERS = ["core", "transports", "protocols"]
HOME = "core/base/time.h"

WRONG = re.compile(
    r"""clock(?:_ns)?\([^()]*\)\s*\+      # the clock and something
      | \+\s*tram__clock\(
      | \bnow(?:_ns)?\s*\+\s*[A-Za-z(]    # a time that was read, and something
      | _ns\b\s*\+(?!=)\s*[A-Za-z(]       # two things in nanoseconds; a rounding constant is none
      | \+(?!=)\s*[\w.>-]*_(?:ns|NS)\b
      | UINT64_MAX\s*-                    # a saturation of its own
    """,
    re.X,
)

problems = 0
for folder in FOLDERS:
    for path in sorted((ROOT / folder).rglob("*.[ch]")):
        name = str(path.relative_to(ROOT))
        text = path.read_text()
        for match in WRONG.finditer(text) if name != HOME else ():
            problems += 1
            line = text.count("\n", 0, match.start())
            print(f"{name}:{line + 1}: {text.splitlines()[line].strip()}")
print(f"{problems} sums of a time and a duration outside {HOME}")
sys.exit(1 if problems else 0)
