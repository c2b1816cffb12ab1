#!/bin/sh
# tram-check: release-only
# Every rule of docs/rules.md has a test or an excuse, and the table of tests is fresh.
set -eu
cd "${TRAM_SOURCE_DIR:?names the top of the source tree}"
exec python3 scripts/rules --check
