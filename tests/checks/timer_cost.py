#!/usr/bin/env python3
"""Setting a transport's timer anew costs at most 15 instructions, counted by callgrind."""
# tram-check: release-only

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

MOST = 15
TIMES = 100000 # rearm_often() of the test; what it does beside is lost in this
FUNCTION = "tram_transport_call_later"

build = os.environ.get("TRAM_BUILD_DIR")
program = pathlib.Path(build or ".") / "tests/integration/test_base_timer"
if not build or not program.exists() or not shutil.which("valgrind"):
    print("no build or no valgrind")
    sys.exit(77)
with tempfile.TemporaryDirectory() as folder:
    output = pathlib.Path(folder) / "out"
    subprocess.run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={output}", f"--toggle-collect={FUNCTION}",
                    "--collect-atstart=no", program, "test_setting_it_anew_takes_no_memory"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found = re.search(r"^(?:summary|totals): (\d+)", output.read_text(), re.M)
each = int(found[1]) / TIMES
print(f"{each:.1f} instructions each time")
sys.exit(0 if 0 < each < MOST + 0.5 else 1)
