#!/usr/bin/env python3
# tram-check: release-only
"""docs/renames.txt is true: no old name is left in include/, and each new one is declared there."""

import os
import pathlib
import re
import sys

ROOT = pathlib.Path(os.environ.get("TRAM_SOURCE_DIR") or pathlib.Path(__file__).parents[2]).resolve()
sys.path.insert(0, str(ROOT / "tests/support"))
from headers import Headers, code_of  # noqa: E402

RENAMES = [line.split()[:2] for line in (ROOT / "docs/renames.txt").read_text().splitlines()
           if line and not line.startswith("#")]


def problems_of(headers):
    present = {word: name for name, text in headers.texts.items() for word in re.findall(r"\w+", code_of(text))}
    declared = headers.names
    for old, new in RENAMES:
        if old != new and old in present:
            yield f"{old} is still in {present[old]}"
        # Members of structs are words among others.
        if new not in (declared if re.match(r"(?i)tram_", new) else present):
            yield f"no header declares {new}, which {old} has become"


headers = Headers.of(ROOT)
problems = list(problems_of(headers))
for problem in problems:
    print(problem)
# Does it find anything? Each of the new names, renamed where it is declared, and nowhere else.
for old, new in RENAMES:
    if new in headers.names:
        assert f"no header declares {new}, which {old} has become" in problems_of(headers.renamed(new, new + "_")), new
print(f"{len(RENAMES)} renames: {len(problems)} problems")
sys.exit(1 if problems or not RENAMES else 0)
