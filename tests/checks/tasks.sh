#!/usr/bin/env bash
# tram-check: release-only
# What only tools can see of tasks: notes and landing pads of the switch, ucontext in its place, exceptions of C++,
# backtraces by gdb.
set -euo pipefail
cd "${TRAM_SOURCE_DIR:-$(dirname "$0")/../..}"
build=${TRAM_BUILD_DIR:-build/release}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cc=${CC:-gcc}
cxx=${CXX:-g++}

fail() {
    echo "$1"
    exit 1
}

# landing_pads OBJECT READELF OBJDUMP NOTE INSTRUCTION
landing_pads() {
    local notes
    notes=$("$2" -n "$1")
    grep -q "$4" <<<"$notes" || fail "$1: no note of $4"
    if grep -q SHSTK <<<"$notes"; then fail "$1: says that it survives shadow stacks, which it does not"; fi
    "$2" -SW "$1" | grep -q '\.note\.GNU-stack .* 0  *0  *1$' || fail "$1: no mark that its stack is not executable"
    for name in tram__context_swap tram__context_start; do
        "$3" -d "$1" | grep -A1 "<$name>:" | grep -q "$5" || fail "$1: $name does not begin with $5"
    done
}

# rules: A-40
switch_of_x86_64() {
    [ "$(uname -m)" = x86_64 ] || return 0
    "$cc" -c core/tasks/context_x86_64.S -o "$work/x86_64.o"
    landing_pads "$work/x86_64.o" readelf objdump IBT endbr64
    echo "x86-64: landing pads and notes"
}
switch_of_x86_64

# rules: A-40
switch_of_aarch64() {
    local prefix=aarch64-linux-gnu-
    command -v ${prefix}gcc >/dev/null || {
        echo "aarch64: no cross compiler here"
        return 0
    }
    ${prefix}gcc -c core/tasks/context_aarch64.S -o "$work/aarch64.o"
    landing_pads "$work/aarch64.o" ${prefix}readelf ${prefix}objdump BTI "bti.*c"
    command -v qemu-aarch64 >/dev/null || return 0
    if ! ${prefix}gcc -E -include fenv.h -xc /dev/null >/dev/null 2>&1; then
        echo "aarch64: landing pads and notes; no C library of it here, so that it does not switch"
        return 0
    fi
    ${prefix}gcc -std=c11 -D_GNU_SOURCE -O2 -Wall -Werror -I. -Iinclude core/tasks/context.c core/tasks/context_aarch64.S \
        tests/checks/tasks_switch.c -static -o "$work/switch" -lm
    qemu-aarch64 "$work/switch" || fail "aarch64: the switch loses registers"
    echo "aarch64: landing pads and notes, and it switches"
}
switch_of_aarch64

# The same by the compiler of this build.
# rules: A-40
switch_here() {
    "$cc" -std=c11 -D_GNU_SOURCE -O2 -I. -Iinclude core/tasks/context.c core/tasks/context_*.S tests/checks/tasks_switch.c \
        -o "$work/switch" -lm
    "$work/switch" || fail "the switch loses registers"
    "$cc" -std=c11 -D_GNU_SOURCE -DTRAM_UCONTEXT -O2 -I. -Iinclude core/tasks/context.c core/tasks/context_*.S \
        tests/checks/tasks_switch.c -o "$work/switch" -lm
    "$work/switch" || fail "ucontext loses registers"
    echo "registers survive, by ucontext too"
}
switch_here

# The library's own switch gives way to what is linked before it.
# rules: A-40
ucontext() {
    "$cc" -std=c11 -D_GNU_SOURCE -DTRAM_UCONTEXT -O2 -I. -c core/tasks/context.c -o "$work/ucontext.o"
    "$cc" -std=c11 -O2 -Iinclude tests/checks/tasks_ucontext.c "$work/ucontext.o" "$build/libtram.a" -pthread \
        -o "$work/program"
    "$work/program" || fail "tasks fail on ucontext"
    echo "tasks run on ucontext"
}
ucontext

# rules: A-41
exceptions_of_cpp() {
    "$cxx" -std=c++17 -O2 -Wall -Wextra -Iinclude tests/checks/tasks_cpp.cc -L"$build" -ltram -Wl,-rpath,"$build" \
        -o "$work/cpp"
    echo "C++ exceptions: $("$work/cpp")" || fail "exceptions of C++ do not work in tasks"
}
exceptions_of_cpp

# rules: A-42
backtrace() {
    command -v gdb >/dev/null || {
        echo "no gdb here"
        return 0
    }
    "$cc" -std=c11 -g -O1 -Iinclude tests/checks/tasks_gdb.c "$build/libtram.a" -pthread -o "$work/gdb"
    local text
    text=$(gdb -q -batch -ex 'break deepest' -ex run -ex bt "$work/gdb" 2>&1) || true
    for frame in '#0 .*deepest' '#1 .*middle' '#2 .*run ' 'context_start'; do
        grep -q "$frame" <<<"$text" || fail "no frame $frame in gdb's backtrace: $text"
    done
    if grep -q 'Backtrace stopped\|corrupt\|?? ()' <<<"$text"; then fail "gdb does not find the end: $text"; fi
    echo "gdb: $(grep -c '^#' <<<"$text") frames, and no more"
}
backtrace
