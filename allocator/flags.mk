# What the allocator needs beyond the common flags: it is preloaded into programs that know nothing
# of it, runs on a helper thread without TLS, and must not have its own calls turned into malloc.
HIMALLOC_CFLAGS  := -fPIC -fvisibility=hidden -ftls-model=initial-exec -fno-builtin-malloc \
                    -fno-builtin-calloc -fno-builtin-realloc -fno-builtin-free \
                    -fno-stack-protector -fno-exceptions -fno-tree-loop-distribute-patterns -fno-tree-slp-vectorize -fno-store-merging
# one readable and executable segment, one writable: two mappings fewer at each program's start
HIMALLOC_LDFLAGS := -Wl,-z,noseparate-code -Wl,-O1 -Wl,--hash-style=gnu -Wl,-z,now -Wl,-z,relro -Wl,--build-id -Wl,-z,nodelete
