#!/usr/bin/env python3
# tram-check: release-only
"""TRAM_EVALUE is returned by tram__invalid() alone, so that tram_wrong_option() names what made no sense."""

import os
import pathlib
import re
import sys

ROOT = pathlib.Path(os.environ.get("TRAM_SOURCE_DIR") or pathlib.Path(__file__).parents[2]).resolve()
FOLDERS = ["core", "transports", "protocols"]
HOME = "core/base/error.c"

COMMENT = re.compile(r"/\*.*?\*/", re.S)
RETURNED = re.compile(r"return [^;]*\bTRAM_EVALUE\b[^;]*;|[?:] TRAM_EVALUE\b", re.S)
NAMES = re.compile(r"address_error\(") # says it in its own error
ELSEWHERE = "transports/tls/" # a library of its own, which says it in its tram_error
COMPARED = re.compile(r"[!=]= TRAM_EVALUE")

problems = 0
for folder in FOLDERS:
    for path in sorted((ROOT / folder).rglob("*.[ch]")):
        name = str(path.relative_to(ROOT))
        text = COMMENT.sub(lambda comment: "\n" * comment[0].count("\n"), path.read_text())
        for match in () if name == HOME or name.startswith(ELSEWHERE) else RETURNED.finditer(text):
            if name == "core/base/invalid.h" or COMPARED.search(match[0]) or NAMES.search(match[0]):
                continue
            problems += 1
            line = text.count("\n", 0, match.start())
            print(f"{name}:{line + 1}: {text.splitlines()[line].strip()}")
print(f"{problems} places return TRAM_EVALUE without the name of what is wrong")
sys.exit(1 if problems else 0)
