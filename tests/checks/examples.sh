#!/usr/bin/env bash
# The programs of examples/ do what they are there to show. One function each, named for its rule in
# docs/rules.md, group E.
set -euo pipefail
examples=${TRAM_BUILD_DIR:-build/release}/examples

fail() {
    echo "$*"
    exit 1
}

# E-5: the output of date, collected from a subprocess.
subprocess_date() {
    local output
    output=$(LC_ALL=C TZ=UTC timeout 20 "$examples/subprocess-date") || fail "subprocess-date: exit code $?"
    [[ $output =~ ^"Current date: "[A-Z][a-z]+\ .*UTC ]] || fail "subprocess-date printed: $output"
    # An empty PATH has no date: a clear error, and no hanging.
    if output=$(PATH=/nonexistent "$examples/subprocess-date" 2>&1); then fail "subprocess-date: no error without date"; fi
    [[ $output == "date: No such file or directory" ]] || fail "subprocess-date without date printed: $output"
}

subprocess_date
