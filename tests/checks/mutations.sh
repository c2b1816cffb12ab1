#!/bin/sh
# tram-check: release-only
# Every mutation of tests/mutations still finds its place in the source. Whether tests notice them: scripts/test --full.
exec python3 "${TRAM_SOURCE_DIR:-.}/tests/mutations/run.py" --places
