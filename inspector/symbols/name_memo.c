/* Printed names in a hash table by address; see name_memo.h. */
#include "symbols/name_memo.h"

#include "symbols/symbols.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST_SLOTS = 1024, NAME_MAX_BYTES = 4096, RAW_MAX_BYTES = 1 << 16 };

struct name_memo {
    struct printed_name *slots; /* raw NULL: empty */
    size_t slot_count, count;
};

struct name_memo *name_memo_new(void)
{
    struct name_memo *memo = calloc(1, sizeof *memo);
    if (memo)
        memo->slots = calloc(FIRST_SLOTS, sizeof *memo->slots);
    if (memo && memo->slots) {
        memo->slot_count = FIRST_SLOTS;
        return memo;
    }
    free(memo);
    return NULL;
}

void name_memo_free(struct name_memo *memo)
{
    if (memo)
        free(memo->slots);
    free(memo);
}

static struct printed_name *slot_of(const struct name_memo *memo, const char *raw)
{
    size_t mask = memo->slot_count - 1;
    size_t at = (size_t)((uintptr_t)raw * 0x9e3779b97f4a7c15u >> 20) & mask;
    while (memo->slots[at].raw && memo->slots[at].raw != raw)
        at = (at + 1) & mask;
    return &memo->slots[at];
}

static bool grow(struct name_memo *memo)
{
    struct name_memo larger = {.slot_count = memo->slot_count * 2};
    larger.slots = calloc(larger.slot_count, sizeof *larger.slots);
    if (!larger.slots)
        return false;
    for (size_t i = 0; i < memo->slot_count; i++)
        if (memo->slots[i].raw)
            *slot_of(&larger, memo->slots[i].raw) = memo->slots[i];
    free(memo->slots);
    memo->slots = larger.slots;
    memo->slot_count = larger.slot_count;
    return true;
}

const struct printed_name *name_memo_get(struct name_memo *memo, struct text_pool *texts,
                                         const char *raw)
{
    struct printed_name *slot = slot_of(memo, raw);
    if (slot->raw)
        return slot;
    if (memo->count * 2 >= memo->slot_count) {
        if (!grow(memo))
            return NULL;
        slot = slot_of(memo, raw);
    }
    char text[NAME_MAX_BYTES];
    symbols_demangle(raw, text, sizeof text);
    text[strcspn(text, "@")] = 0; /* read@@GLIBC_2.2.5: the version tells nobody anything */
    struct printed_name name = {.raw = raw};
    name.function = text_pool_keep(texts, text, strlen(text));
    if (strcmp(text, raw) != 0)
        name.linkage = text_pool_keep(texts, raw, strnlen(raw, RAW_MAX_BYTES));
    if (!name.function)
        return NULL;
    *slot = name;
    memo->count++;
    return slot;
}
