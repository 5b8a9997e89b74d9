/*
 * Language rules for interior pointers. Each looks at the block's head, read again for the few
 * blocks in question, and asks for several facts that must agree; random data passes none of them
 * but by a chance of about 2^-20 or less (array cookies of very small counts: see below).
 *
 *   array cookie       Itanium C++ ABI 2.7: word n before the elements (8 bytes in, or 16 where the
 *                      elements are aligned to 16, the count then at 8). n * s + cookie must be a
 *                      size for which the allocator would have given this block. A count of 1
 *                      always fits: the price of not knowing s. Length-prefixed buffers (a size
 *                      word, then that many bytes) pass as s = 1, rightly.
 *   second base        Itanium ABI 2.5: the table pointer at offset k has offset-to-top -k in the
 *                      word two before the one it points to; the first one has 0. Both lie in
 *                      memory of a module.
 *   exception          libstdc++ and libsupc++: class "GNUCC++\0" (or \1 for dependent ones) in the
 *                      unwind header, in the first 128 bytes; users point behind it.
 *   tree node          tsearch(), which setenv() and others use: key, left, right, and the colour
 *                      in bit 0 of the pointer to a node: red ones are held one byte in. The key
 *                      and the children must be starts of blocks, the children of the same size.
 *                      A block {pointer, 0, 0} passes as a leaf: the price of not knowing more.
 *   loaded objects     glibc from 2.35 on keeps what _dl_find_object() searches in segments that it
 *                      aligns to two cache lines by hand: previous segment, the block's start,
 * used, room, then entries of four words or more, so many that they fit. Python object      objects
 * that the collector tracks have 16 bytes before them; type at 8, and types of types end in `type`,
 * which is its own type. Newer versions put two words more (weak references, dictionary) before
 * those. A count of 0 is right: dead objects wait on free lists for the next of their type. Python
 * values      the attributes of an object, from CPython 3.11 on: a pointer p bytes in, the byte
 * before that place says p, the one before says how many are used; room for n attributes has a
 * prefix of n + 2 bytes, rounded up to words.
 */
#include "analysis/judge.h"

enum { WORD = 8, EXCEPTION_WORDS = 32, TYPE_STEPS = 6 };

static bool fits_block(const struct judged *block, uint64_t count, uint64_t cookie)
{
    if (block->usable < cookie)
        return false;
    uint64_t room = block->usable - cookie;
    if (count == 0)
        return room <= block->slack + WORD;
    if (count > room)
        return false;
    uint64_t size = room / count; /* the largest element that fits */
    return room - size * count <= block->slack;
}

bool judge_array_cookie(const struct judged *block)
{
    bool by_8 = block->head_count > 0 && fits_block(block, block->head[0], WORD);
    bool by_16 = block->head_count > 1 && fits_block(block, block->head[1], 2 * WORD);
    return by_8 || by_16;
}

static bool is_in_module(const struct judged *block, uint64_t address)
{
    return symbols_module_at(block->symbols, address) != NULL;
}

/* A table pointer whose offset-to-top is -offset. */
static bool is_table_of_base(const struct judged *block, uint64_t word, uint64_t offset)
{
    uint64_t before[2];
    if (word % WORD || word < 2 * WORD || !is_in_module(block, word) ||
        target_peek(block->target, word - 2 * WORD, before, sizeof before) != sizeof before)
        return false;
    return before[0] == 0 - offset && (before[1] == 0 || is_in_module(block, before[1]));
}

bool judge_second_base(const struct judged *block)
{
    if (!block->head_count || !is_table_of_base(block, block->head[0], 0))
        return false;
    for (size_t i = 1; i < block->head_count; i++)
        if (is_table_of_base(block, block->head[i], i * WORD))
            return true;
    return false;
}

bool judge_exception(const struct judged *block)
{
    static const uint64_t gnu_class = UINT64_C(0x474e5543432b2b00);
    for (size_t i = 0; i < block->head_count && i < EXCEPTION_WORDS; i++)
        if ((block->head[i] & ~UINT64_C(1)) == gnu_class)
            return true;
    return false;
}

static bool is_start_of_live(const struct judged *block, uint64_t word, uint64_t usable)
{
    struct block_place place;
    return blocks_at(block->blocks, word, &place) && place.offset == 0 &&
           blocks_is_live(block->blocks, place.block) &&
           (usable == 0 || blocks_usable(block->blocks, place.block) == usable);
}

bool judge_tree_node(const struct judged *block)
{
    enum { KEY, LEFT, RIGHT, NODE_WORDS };
    if (!block->blocks || block->head_count < NODE_WORDS ||
        block->usable > NODE_WORDS * WORD + block->slack + WORD)
        return false;
    for (int i = LEFT; i <= RIGHT; i++)
        if (block->head[i] &&
            !is_start_of_live(block, block->head[i] & ~UINT64_C(1), block->usable))
            return false;
    return is_start_of_live(block, block->head[KEY], 0);
}

bool judge_loaded_objects(const struct judged *block)
{
    enum { PREVIOUS, OWN_BLOCK, USED, ROOM, HEADER_WORDS, LINE_WORDS = 16, ENTRY_WORDS = 4 };
    for (size_t i = 0; i < LINE_WORDS && i + HEADER_WORDS <= block->head_count; i++) {
        const uint64_t *segment = &block->head[i];
        uint64_t words = block->usable / WORD - i - HEADER_WORDS;
        if (segment[OWN_BLOCK] == block->address && segment[USED] <= segment[ROOM] &&
            segment[ROOM] && segment[ROOM] <= words / ENTRY_WORDS && segment[PREVIOUS] % WORD == 0)
            return true;
    }
    return false;
}

/* Does the chain of types from type end in one that is its own type, in a module's data? */
static bool is_python_type(const struct judged *block, uint64_t type)
{
    for (unsigned step = 0; step < TYPE_STEPS; step++) {
        uint64_t next;
        if (type % WORD ||
            target_peek(block->target, type + WORD, &next, sizeof next) != sizeof next)
            return false;
        if (next == type)
            return is_in_module(block, type);
        type = next;
    }
    return false;
}

static bool is_python_object(const struct judged *block, size_t first)
{
    if (block->head_count < first + 2)
        return false;
    return (uint32_t)block->head[first] < UINT32_C(1) << 31 &&
           is_python_type(block, block->head[first + 1]);
}

bool judge_python_object(const struct judged *block)
{
    return is_python_object(block, 2) || is_python_object(block, 4);
}

/* Is the first attribute that is set, from word first on, an object? */
static bool has_python_attribute(const struct judged *block, size_t first)
{
    for (size_t i = first; i < block->head_count; i++) {
        uint64_t object[2];
        if (!block->head[i])
            continue;
        return target_peek(block->target, block->head[i], object, sizeof object) == sizeof object &&
               is_python_type(block, object[1]);
    }
    return false;
}

bool judge_python_values(const struct judged *block)
{
    for (size_t first = 1; first < block->head_count && first * WORD <= UINT8_MAX; first++) {
        uint64_t last = block->head[first - 1];
        bool says_place = last >> 56 == first * WORD;
        uint64_t used = last >> 48 & UINT8_MAX, most = first * WORD - 2;
        bool fits = block->usable <= first * WORD + most * WORD + block->slack;
        if (says_place && fits && used <= most &&
            (has_python_attribute(block, first) || (!used && !block->head[first])))
            return true;
    }
    return false;
}

static bool read_head(struct judged *judged, const struct inspection *in, hi_block block)
{
    const struct blocks *blocks = in->heaps->blocks;
    const struct region *region = blocks_region_of(blocks, block);
    if (!region)
        return false;
    judged->target = in->target;
    judged->symbols = in->symbols;
    judged->blocks = blocks;
    judged->address = blocks_address(blocks, block);
    judged->usable = blocks_usable(blocks, block);
    judged->slack = region->slack;
    size_t bytes = sizeof judged->head;
    if (judged->usable < bytes)
        bytes = (size_t)judged->usable;
    judged->head_count = target_peek(in->target, judged->address, judged->head, bytes) / WORD;
    return judged->head_count > 0;
}

bool judge_block(void *context, hi_block block, enum edge_kind kind)
{
    struct judged judged;
    if (!read_head(&judged, context, block))
        return false;
    if (kind == EDGE_COOKIE && judge_array_cookie(&judged))
        return true;
    return judge_second_base(&judged) || judge_exception(&judged) || judge_python_object(&judged) ||
           judge_python_values(&judged) || judge_loaded_objects(&judged) ||
           (kind == EDGE_TAGGED && judge_tree_node(&judged));
}
