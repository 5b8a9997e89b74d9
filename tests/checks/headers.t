#!/bin/sh
# Every header compiles alone.
cd "$(dirname "$0")/../.." || exit 1
n=0
for header in inspector/*/*.h inspector/*.h allocator/*.h tests/*/*.h; do
    [ -e "$header" ] || continue
    n=$((n + 1))
    if out=$(printf '#include "%s"\n' "$header" |
        ${CC:-gcc} -std=gnu11 -D_GNU_SOURCE -Wall -Wextra -Werror -I. -Iinspector -Itests -Iallocator -fsyntax-only -xc - 2>&1); then
        echo "ok $n - $header"
    else
        echo "not ok $n - $header"
        echo "$out" | sed 's/^/# /'
    fi
done
echo "1..$n"
