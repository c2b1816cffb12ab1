#!/usr/bin/env python3
# tram-check: release-only
"""Words that the tree said once and a newcomer could not know: none comes back. CONTRIBUTING.md says what to say."""

import os
import pathlib
import re
import sys

ROOT = pathlib.Path(os.environ.get("TRAM_SOURCE_DIR") or pathlib.Path(__file__).parents[2]).resolve()
FOLDERS = ["core", "transports", "protocols", "include", "docs"]
NOT_OURS_TO_CHANGE = {"docs/renames.txt"} # it lists old names

WHOLE_WORDS = """
grave graves bury bury_the_dead seat seats loop_seat guest guests welcome turn_away heir heirs parcel parcels letter
came_gone way_back pump give_way T_GIVES_WAY T_SPECIAL T_PARTS telling seal lose_soon lose_now whither
TURNS_OF_HEARING WORKER_HEARS WORKER_LEAVES SOCK_LATER SOCK_REST farewell survey hear_end call_edge learn_addresses
tram__splice_learn settle_shard take_cell mail_place request_place make_place spare_node fds_room descriptors_room
""".split()
PATTERNS = [rf"\b{word}\b" for word in WHOLE_WORDS] + [
    r"\bthe dead\b", r"\bgoes home\b", r"\bHEIR_\w+", r"\w*take_back\b", r"\bquiet\.h\b", r"\btell_\w+_sent\b",
]
# A banner is one line.
PATTERNS.append(r"^\s*\*\s*-{10,}")
WRONG = re.compile("|".join(PATTERNS), re.M)

problems = 0
for folder in FOLDERS:
    for path in sorted((ROOT / folder).rglob("*")):
        name = str(path.relative_to(ROOT))
        if not path.is_file() or path.suffix not in (".c", ".h", ".md", ".txt", ".map") or name in NOT_OURS_TO_CHANGE:
            continue
        text = path.read_text()
        for match in WRONG.finditer(text):
            problems += 1
            print(f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match.group().strip()}")
print(f"{problems} words to replace")
sys.exit(1 if problems else 0)
