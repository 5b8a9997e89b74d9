/* Strings in chunks, found again by a hash table of their addresses; see text_pool.h. */
#include "symbols/text_pool.h"

#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES = 64 << 10, FIRST_SLOTS = 1024 };

struct chunk {
    struct chunk *next;
    size_t used, size;
    char bytes[];
};

struct slot {
    const char *text; /* NULL: empty */
    uint32_t hash, bytes;
};

struct text_pool {
    struct chunk *chunks;
    struct slot *slots;
    size_t slot_count, count;
};

struct text_pool *text_pool_new(void)
{
    struct text_pool *pool = calloc(1, sizeof *pool);
    if (pool)
        pool->slots = calloc(FIRST_SLOTS, sizeof *pool->slots);
    if (pool && !pool->slots) {
        free(pool);
        return NULL;
    }
    if (pool)
        pool->slot_count = FIRST_SLOTS;
    return pool;
}

void text_pool_free(struct text_pool *pool)
{
    if (!pool)
        return;
    while (pool->chunks) {
        struct chunk *next = pool->chunks->next;
        free(pool->chunks);
        pool->chunks = next;
    }
    free(pool->slots);
    free(pool);
}

static uint32_t hash_text(const char *text, size_t bytes)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ (unsigned char)text[i]) * 0x100000001b3u;
    return (uint32_t)(hash ^ hash >> 32);
}

static struct slot *slot_of(const struct text_pool *pool, const char *text, size_t bytes,
                            uint32_t hash)
{
    size_t mask = pool->slot_count - 1, at = hash & mask;
    for (; pool->slots[at].text; at = (at + 1) & mask)
        if (pool->slots[at].hash == hash && pool->slots[at].bytes == bytes &&
            memcmp(pool->slots[at].text, text, bytes) == 0)
            break;
    return &pool->slots[at];
}

static bool grow(struct text_pool *pool)
{
    struct text_pool larger = {.slot_count = pool->slot_count * 2};
    larger.slots = calloc(larger.slot_count, sizeof *larger.slots);
    if (!larger.slots)
        return false;
    for (size_t i = 0; i < pool->slot_count; i++) {
        const struct slot *slot = &pool->slots[i];
        if (slot->text)
            *slot_of(&larger, slot->text, slot->bytes, slot->hash) = *slot;
    }
    free(pool->slots);
    pool->slots = larger.slots;
    pool->slot_count = larger.slot_count;
    return true;
}

static char *take_room(struct text_pool *pool, size_t bytes)
{
    struct chunk *chunk = pool->chunks;
    if (!chunk || chunk->size - chunk->used < bytes) {
        size_t size = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES;
        chunk = malloc(sizeof *chunk + size);
        if (!chunk)
            return NULL;
        *chunk = (struct chunk){.next = pool->chunks, .size = size};
        pool->chunks = chunk;
    }
    char *room = chunk->bytes + chunk->used;
    chunk->used += bytes;
    return room;
}

const char *text_pool_keep(struct text_pool *pool, const char *text, size_t bytes)
{
    uint32_t hash = hash_text(text, bytes);
    if (bytes >= UINT32_MAX || (pool->count * 2 >= pool->slot_count && !grow(pool)))
        return NULL;
    struct slot *slot = slot_of(pool, text, bytes, hash);
    if (slot->text)
        return slot->text;
    char *copy = take_room(pool, bytes + 1);
    if (!copy)
        return NULL;
    memcpy(copy, text, bytes);
    copy[bytes] = 0;
    *slot = (struct slot){copy, hash, (uint32_t)bytes};
    pool->count++;
    return copy;
}
