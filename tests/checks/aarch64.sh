#!/usr/bin/env bash
# tram-check: release-only
# The library and its unit tests for aarch64, by a cross compiler, and run by qemu. Where TRAM_TEST_FULL is set and there
# are the tools and a sysroot: scripts/sysroot arm64 build/sysroot-arm64, or wherever TRAM_SYSROOT_ARM64 says.
set -euo pipefail
cd "${TRAM_SOURCE_DIR:-$(dirname "$0")/../..}"
sysroot=${TRAM_SYSROOT_ARM64:-build/sysroot-arm64}
build=build/aarch64

skip() {
    echo "skipped: $1"
    exit 77
}
[ -n "${TRAM_TEST_FULL:-}" ] || skip "it takes minutes; TRAM_TEST_FULL=1 runs it"
for tool in aarch64-linux-gnu-gcc qemu-aarch64; do command -v $tool >/dev/null || skip "no $tool here"; done
[ -e "$sysroot/usr/include/ck_stack.h" ] || skip "no $sysroot; scripts/sysroot arm64 $sysroot makes it"
sysroot=$(cd "$sysroot" && pwd)

# What qemu's emulation of Linux does not have, and so what these tests ask of the kernel.
declare -A cannot=()

cmake -S . -B $build -G Ninja -DCMAKE_BUILD_TYPE=Release -DTRAM_TESTS=ON -DTRAM_WERROR=ON -DTRAM_EXAMPLES=OFF -DTRAM_PROGRAMS=OFF \
    -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc \
    -DCMAKE_SYSROOT="$sysroot" -DCMAKE_FIND_ROOT_PATH_MODE_PROGRAM=NEVER -DCMAKE_FIND_ROOT_PATH_MODE_LIBRARY=ONLY \
    -DCMAKE_FIND_ROOT_PATH_MODE_INCLUDE=ONLY -DCMAKE_FIND_ROOT_PATH_MODE_PACKAGE=ONLY \
    -DCMAKE_LIBRARY_ARCHITECTURE=aarch64-linux-gnu >$build.log
tests=()
for source in tests/unit/test_*.c; do
    name=$(basename "$source" .c)
    tests+=("${name#test_}")
done
ninja -C $build "${tests[@]/#/unit-}" >>$build.log || { tail -30 $build.log; exit 1; }
echo "aarch64: the library and ${#tests[@]} unit tests are built"

failed=() passed=0
for name in "${tests[@]}"; do
    if [ -n "${cannot[$name]:-}" ]; then
        echo "not run: $name: ${cannot[$name]}"
    elif env -u TRAM_TEST_FULL timeout 120 qemu-aarch64 -L "$sysroot" "$build/tests/unit/test_$name" >"$build/$name.log" 2>&1; then
        passed=$((passed + 1))
    else
        echo "$name: exit code $?"
        grep -E 'FAILED|ERROR|LINE' "$build/$name.log" | head -5 || true
        failed+=("$name")
    fi
done
echo "aarch64: $passed unit tests pass by qemu, ${#cannot[@]} cannot run there, ${#failed[@]} fail"
[ ${#failed[@]} -eq 0 ]
