#!/usr/bin/env bash
# tram-check: release-only
# tests/model/mailbox.pml holds, in every interleaving; and each of the weakened models that it names fails. Skipped
# where there is no spin.
set -euo pipefail
model=${TRAM_SOURCE_DIR:-.}/tests/model/mailbox.pml
if ! command -v spin >/dev/null; then
    echo "there is no spin"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$model" "$work/"
cd "$work"

# Prints the verifier's report for the model with this macro, if any.
verify() {
    spin -a ${1:+-D"$1"} mailbox.pml >spin.log || { cat spin.log >&2; exit 1; }
    "${CC:-cc}" "$([ -z "$1" ] && echo -O2 || echo -O0)" -w -DSAFETY -DMEMLIM=2048 -o pan pan.c
    ./pan -m200000 >report
    cat report
}

failed=0
report=$(verify "")
if ! grep -q "errors: 0" <<<"$report" || grep -q "Search not completed\|max search depth too small" <<<"$report"; then
    echo "the model does not hold:"
    echo "$report"
    failed=1
fi
echo "the model holds in $(grep -o '[0-9]* states, stored' <<<"$report")"
weakened=$(sed -n 's/^ \*   \(NO_[A-Z_]*\) .*/\1/p' mailbox.pml)
if [ "$(wc -w <<<"$weakened")" -lt 5 ]; then
    echo "the model names fewer than five ways to weaken it"
    failed=1
fi
for way in $weakened; do
    report=$(verify "$way")
    if grep -q "errors: 0" <<<"$report"; then
        echo "the model holds even with $way"
        failed=1
    else
        echo "$way: $(sed -n 's/^pan:1: \(.*\) (at depth.*/\1/p' <<<"$report")"
    fi
done
exit $failed
