#!/usr/bin/env bash
# tram-check: release-only
# The models of tests/model hold, in every interleaving; and each of the weakened models that they name fails. Skipped
# where there is no spin.
set -euo pipefail
models=$(cd "${TRAM_SOURCE_DIR:-.}/tests/model" && echo "$PWD"/*.pml)
if ! command -v spin >/dev/null; then
    echo "there is no spin"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# Prints the verifier's report for model.pml with this macro, if any.
verify() {
    spin -a ${1:+-D"$1"} model.pml >spin.log || { cat spin.log >&2; exit 1; }
    "${CC:-cc}" "$([ -z "$1" ] && echo -O2 || echo -O0)" -w -DSAFETY -DMEMLIM=2048 -o pan pan.c
    ./pan -m200000 >report
    cat report
}

# A model, and its weakened forms.
check() {
    local name report way weakened
    name=$(basename "$1")
    cp "$1" model.pml
    report=$(verify "")
    if ! grep -q "errors: 0" <<<"$report" || grep -q "Search not completed\|max search depth too small" <<<"$report"; then
        echo "$name does not hold:"
        echo "$report"
        failed=1
    fi
    echo "$name holds in $(grep -o '[0-9]* states, stored' <<<"$report")"
    weakened=$(sed -n 's/^ \*   \(NO_[A-Z_]*\) .*/\1/p' model.pml)
    if [ "$(wc -w <<<"$weakened")" -lt 5 ]; then
        echo "$name names fewer than five ways to weaken it"
        failed=1
    fi
    for way in $weakened; do
        report=$(verify "$way")
        if grep -q "errors: 0" <<<"$report"; then
            echo "$name holds even with $way"
            failed=1
        else
            echo "$way: $(sed -n 's/^pan:1: \(.*\) (at depth.*/\1/p' <<<"$report")"
        fi
    done
}

failed=0
for model in $models; do
    check "$model"
done
exit $failed
