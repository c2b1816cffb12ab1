#!/usr/bin/env bash
# tram-check: release-only
# The library never brings an allocator along: that would replace its host's. jemalloc is found, if the
# program has it, through weak symbols; tram's own programs are the ones that link it.
set -euo pipefail
build=${TRAM_BUILD_DIR:-build/release}
status=0

needed() { LC_ALL=C readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'; }

if needed "$build/libtram.so" | grep jemalloc; then
    echo "libtram.so needs jemalloc"
    status=1
fi
# In both libraries an allocator's own functions may be asked for weakly only.
strong=$(nm -P "$build/libtram.a" 2>/dev/null |
    awk '$2 == "U" && $1 ~ /^(mallocx|rallocx|xallocx|sallocx|dallocx|sdallocx|nallocx|mallctl.*|malloc_stats_print)$/')
if [ -n "$strong" ]; then
    echo "libtram.a asks for jemalloc by strong symbols: $strong"
    status=1
fi
for program in "$build"/tools/tram-*; do
    if [ -x "$program" ] && ! needed "$program" | grep -q jemalloc; then
        echo "$program does not link jemalloc"
        status=1
    fi
done
exit $status
