#!/usr/bin/env bash
# tram-check: release-only
# A cross build that finds the ck_md.h of its host is refused, instead of being given the host's fences.
set -euo pipefail
header=${TRAM_SOURCE_DIR:-.}/core/base/ck.h
try() { "${CC:-cc}" -w -E "$@" "$header" 2>&1 >/dev/null; }

case $("${CC:-cc}" -dumpmachine) in
x86_64-*) ;;
*) echo "this machine is not the host that the check is about"; exit 77 ;;
esac
failed=0
if ! try >/dev/null; then
    echo "this machine is refused its own ck_md.h: $(try || true)"
    failed=1
fi
for machine in __aarch64__ __arm__ __powerpc64__ __riscv; do
    if refusal=$(try -U__x86_64__ -D$machine); then
        echo "with $machine the ck_md.h of this machine is taken"
        failed=1
    elif ! grep -q "ck_md.h is another architecture's" <<<"$refusal"; then
        echo "with $machine something else is refused: $refusal"
        failed=1
    fi
done
exit $failed
