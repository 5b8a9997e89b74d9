#!/bin/sh
# Layers hold, and the check that holds them has teeth.
cd "$(dirname "$0")/../.." || exit 1
echo 1..2
out=$(python3 tests/checks/layers) && echo "ok 1 - includes point left only" || {
    echo "not ok 1 - includes point left only"
    echo "$out" | sed 's/^/# /'
}
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
mkdir -p "$copy/tests" "$copy/inspector/base" "$copy/allocator"
cp -r tests/checks "$copy/tests/"
echo '#include "report/writer.h"' >"$copy/inspector/base/wrong.c"
if python3 "$copy/tests/checks/layers" >/dev/null; then
    echo "not ok 2 - an include that points up is found"
else
    echo "ok 2 - an include that points up is found"
fi
