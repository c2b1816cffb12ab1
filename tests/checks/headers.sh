#!/usr/bin/env bash
# tram-check: release-only
# Every public header compiles alone, and twice in a row, as strict C11 and as C++17.
set -euo pipefail
cd "${TRAM_SOURCE_DIR:-$(dirname "$0")/../..}"

status=0 count=0
for header in include/tram/*.h; do
    unit="#include <tram/${header##*/}>"
    # Twice, and a declaration: a unit of macros alone is not allowed to be empty.
    unit+=$'\n'"$unit"$'\nextern int unit;\n'
    # No _GNU_SOURCE for C: a user of a public header need not know that word.
    "${CC:-gcc}" -std=c11 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -Iinclude -x c - <<<"$unit" || {
        echo "$header does not compile alone as C11"
        status=1
    }
    "${CXX:-g++}" -std=c++17 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -Iinclude -x c++ - <<<"$unit" || {
        echo "$header does not compile alone as C++17"
        status=1
    }
    count=$((count + 1))
done
echo "$count headers"
exit $status
