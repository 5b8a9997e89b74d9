#!/bin/sh
# The unit tests again, with the address and undefined-behaviour sanitizers in the inspector.
cd "$(dirname "$0")/../.." || exit 1
if [ -n "${SKIP_SANITIZED:-}" ]; then
    echo "1..0 # SKIP asked not to"
    exit 0
fi
build=${BUILD:-build}/sanitized
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! make -s BUILD="$build" CFLAGS='-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer' \
    sanitized-tests >"$log" 2>&1; then
    echo "1..1"
    echo "not ok 1 - builds with sanitizers"
    sed 's/^/# /' "$log" | tail -20
    exit 0
fi
n=0
for test in "$build"/unit/*.t; do
    case $test in */alloc_*) continue ;; esac
    n=$((n + 1))
    BUILD=${BUILD:-build} ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 \
        LSAN_OPTIONS=intercept_tls_get_addr=0 timeout 300 "$test" >"$log" 2>&1
    status=$?
    # Stops at random instants are judged by the plain run; here only the sanitizers' word counts.
    case $test in *_truth.t)
        [ $status -eq 1 ] && ! grep -qE 'Sanitizer|runtime error' "$log" && status=0 ;;
    esac
    if [ $status -eq 0 ]; then
        echo "ok $n - $(basename "$test") under sanitizers"
    else
        echo "not ok $n - $(basename "$test") under sanitizers"
        grep -vE '^ok|^1\.\.' "$log" | head -30 | sed 's/^/# /'
    fi
done
echo "1..$n"
