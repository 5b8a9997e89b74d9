# What the allocator needs beyond the common flags: it is preloaded into programs that know nothing
# of it, runs on a helper thread without TLS, and must not have its own calls turned into malloc.
HIMALLOC_CFLAGS  := -fPIC -fvisibility=hidden -ftls-model=initial-exec -fno-builtin-malloc \
                    -fno-builtin-calloc -fno-builtin-realloc -fno-builtin-free \
                    -fno-stack-protector -fno-exceptions -fno-tree-loop-distribute-patterns -fno-tree-slp-vectorize -fno-store-merging
# one readable and executable segment, one writable: two mappings fewer at each program's start
# no start files and no detours for its own calls: nine symbols less to look up at each start. No
# relro: a call to mprotect, a mapping more and a page copied are 8 us, 3 % of a program that does
# nothing, and it does not protect what is worth writing over here, the caches
HIMALLOC_LDFLAGS := -nostartfiles -Wl,--defsym=__dso_handle=0 -Wl,-Bsymbolic-functions -Wl,-z,noseparate-code -Wl,-O1 -Wl,--hash-style=gnu -Wl,-z,now -Wl,-z,norelro -Wl,--build-id -Wl,-z,nodelete
