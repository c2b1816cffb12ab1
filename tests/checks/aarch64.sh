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

# Tests that fail there for want of what the emulation of Linux does not have.
declare -A cannot=(
    [test_after_fork_every_call_fails]="pages that fork wipes (MADV_WIPEONFORK)"
    [test_L_24_numbers_that_cannot_be_handled]="the last real-time signal, which is the emulator's"
    [test_V_49_what_may_come_instead]="RLIMIT_NOFILE"
    [test_after_spinning_it_sleeps_for_the_rest]="time: an emulated program is too slow for a millisecond"
    [test_below_a_stack_is_a_guard]="guards: MADV_GUARD_INSTALL is said to be done, and nothing is"
)

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

# Runs a program; which of its tests failed, but for those above. One that broke off has failed as a whole.
run() {
    local name=$1 log=$build/$1.log code=0 test unexpected=0 known=0
    env -u TRAM_TEST_FULL timeout 200 qemu-aarch64 -L "$sysroot" "$build/tests/unit/test_$name" >"$log" 2>&1 || code=$?
    for test in $(grep -oE '\[  (FAILED|ERROR)   ?\] test_\w+' "$log" | grep -oE 'test_\w+' | sort -u); do
        if [ -n "${cannot[$test]:-}" ]; then
            echo "cannot run: $name: $test: ${cannot[$test]}"
            known=$((known + 1))
        else
            echo "FAILED: $name: $test"
            unexpected=1
        fi
    done
    tests_passed=$((tests_passed + $(grep -c '\[       OK' "$log" || true)))
    tests_known=$((tests_known + known))
    if [ $code -ne 0 ] && { [ $known -eq 0 ] || ! grep -q 'test(s) run' "$log"; }; then
        echo "FAILED: $name: exit code $code"
        unexpected=1
    fi
    return $unexpected
}

failed=0 tests_passed=0 tests_known=0
for name in "${tests[@]}"; do run "$name" || failed=$((failed + 1)); done
echo "aarch64: $tests_passed tests pass by qemu, $tests_known cannot run there, $failed of ${#tests[@]} programs fail"
[ $failed -eq 0 ]
