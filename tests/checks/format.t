#!/bin/sh
# clang-format decides (version 14: other versions differ in details, and are skipped).
cd "$(dirname "$0")/../.." || exit 1
if ! command -v clang-format >/dev/null || ! clang-format --version | grep -q 'version 14\.'; then
    echo "1..0 # SKIP clang-format 14 is not here"
    exit 0
fi
echo 1..1
if out=$(git ls-files '*.c' '*.h' | xargs clang-format --dry-run -Werror 2>&1); then
    echo "ok 1 - every file is as clang-format would have it"
else
    echo "not ok 1 - every file is as clang-format would have it (make format)"
    echo "$out" | grep error: | cut -d: -f1 | sort | uniq -c | sed 's/^/# /'
fi
