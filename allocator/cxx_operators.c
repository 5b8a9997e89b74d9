/*
 * cxx_operators: C++ operator new and delete in all forms, under their mangled names, so that the
 * allocator needs no C++ to be built and no C++ runtime to be loaded.
 *
 * A failing new asks the program's new_handler again and again, as the standard says, then throws
 * std::bad_alloc; both come from the C++ runtime, which is there when somebody throws, and found as
 * weak symbols. A handler that throws out of a nothrow new is not caught.
 */
#include "die.h"
#include "fast_path.h"

#include <stdlib.h>

typedef void (*new_handler)(void);
extern new_handler get_new_handler(void) __asm__("_ZSt15get_new_handlerv") __attribute__((weak));
extern void throw_bad_alloc(void) __asm__("_ZSt17__throw_bad_allocv") __attribute__((weak));

static COLD void *new_failed(size_t alignment, size_t bytes, bool nothrow)
{
    for (;;) {
        new_handler handler = get_new_handler ? get_new_handler() : NULL;
        if (!handler)
            break;
        handler();
        void *p = entry_aligned(alignment, bytes);
        if (p)
            return p;
    }
    if (nothrow)
        return NULL;
    if (throw_bad_alloc)
        throw_bad_alloc();
    abort();
}

static inline void *new_plain(size_t bytes, bool nothrow)
{
    void *p = malloc_inline(bytes);
    return LIKELY(p != NULL) ? p : new_failed(16, bytes, nothrow);
}

static inline void *new_aligned(size_t bytes, size_t alignment, bool nothrow)
{
    void *p = entry_aligned(alignment, bytes);
    return LIKELY(p != NULL) ? p : new_failed(alignment, bytes, nothrow);
}

/* clang-format off */
#define NEW(symbol, parameters, call)                                                              \
    EXPORT void *symbol parameters;                                                                \
    EXPORT void *symbol parameters { return call; }
#define DELETE(symbol, parameters)                                                                 \
    EXPORT void symbol parameters;                                                                 \
    EXPORT void symbol parameters { free_inline(p); }

NEW(_Znwm, (size_t n), new_plain(n, false))
NEW(_ZnwmRKSt9nothrow_t, (size_t n, const void *t), ((void)t, new_plain(n, true)))
NEW(_ZnwmSt11align_val_t, (size_t n, size_t a), new_aligned(n, a, false))
NEW(_ZnwmSt11align_val_tRKSt9nothrow_t, (size_t n, size_t a, const void *t),
    ((void)t, new_aligned(n, a, true)))
NEW(_Znam, (size_t n), new_plain(n, false))
NEW(_ZnamRKSt9nothrow_t, (size_t n, const void *t), ((void)t, new_plain(n, true)))
NEW(_ZnamSt11align_val_t, (size_t n, size_t a), new_aligned(n, a, false))
NEW(_ZnamSt11align_val_tRKSt9nothrow_t, (size_t n, size_t a, const void *t),
    ((void)t, new_aligned(n, a, true)))

#define UNUSED __attribute__((unused))
DELETE(_ZdlPv, (void *p))
DELETE(_ZdlPvm, (void *p, UNUSED size_t n))
DELETE(_ZdlPvRKSt9nothrow_t, (void *p, UNUSED const void *t))
DELETE(_ZdlPvSt11align_val_t, (void *p, UNUSED size_t a))
DELETE(_ZdlPvmSt11align_val_t, (void *p, UNUSED size_t n, UNUSED size_t a))
DELETE(_ZdlPvSt11align_val_tRKSt9nothrow_t, (void *p, UNUSED size_t a, UNUSED const void *t))
DELETE(_ZdaPv, (void *p))
DELETE(_ZdaPvm, (void *p, UNUSED size_t n))
DELETE(_ZdaPvRKSt9nothrow_t, (void *p, UNUSED const void *t))
DELETE(_ZdaPvSt11align_val_t, (void *p, UNUSED size_t a))
DELETE(_ZdaPvmSt11align_val_t, (void *p, UNUSED size_t n, UNUSED size_t a))
DELETE(_ZdaPvSt11align_val_tRKSt9nothrow_t, (void *p, UNUSED size_t a, UNUSED const void *t))
/* clang-format on */
