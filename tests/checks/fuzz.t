#!/bin/sh
# Each fuzzer for a few seconds (make fuzz is the long run). The seed is printed when one fails.
cd "$(dirname "$0")/../.." || exit 1
if [ -n "${SKIP_SANITIZED:-}" ]; then
    echo "1..0 # SKIP asked not to"
    exit 0
fi
build=${BUILD:-build}/sanitized
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! make -s BUILD="$build" CFLAGS='-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer' \
    fuzzers >"$log" 2>&1; then
    echo "1..1"
    echo "not ok 1 - builds with sanitizers"
    sed 's/^/# /' "$log" | tail -20
    exit 0
fi
n=0
for source in tests/fuzz/*.c; do
    name=$(basename "$source" .c)
    n=$((n + 1))
    if timeout 120 "$build/fuzz/$name" "${FUZZ_SECONDS:-4}" >"$log" 2>&1; then
        echo "ok $n - $name: $(tail -1 "$log")"
    else
        echo "not ok $n - $name"
        head -40 "$log" | sed 's/^/# /'
    fi
done
echo "1..$n"
