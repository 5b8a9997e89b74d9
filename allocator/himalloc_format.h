/*
 * The format of a himalloc heap: what lies where, when it is true, and what a thread that is
 * stopped at any instruction can leave half done. The only file that both sides include.
 *
 *
 * 1. FINDING THE HEAP
 *
 *   a) By the ELF note in the first page of the module that holds the allocator (libhimalloc.so, or
 *      an executable linked with libhimalloc.a): section .note.himalloc, vendor "himalloc", type
 *      HM_NOTE_ROOT, descriptor of 8 bytes: a signed distance. Address of the descriptor itself
 *      plus distance = address of the anchor, a pointer to the preamble; the anchor is 0 until the
 *      first allocation. No relocation is involved, so it holds for a shared library, a PIE and a
 *      static executable, stripped or not. A default core (coredump_filter 0x33) has that page.
 *   b) Without it: the preamble stands at the start of a readable anonymous mapping, at a multiple
 *      of HM_ROOT_ALIGN bytes, and says its own address in `self`.
 *
 *   struct hm_preamble is the only thing with offsets that are fixed for ever. It is valid when
 *   magic is HM_MAGIC, byte_order is HM_BYTE_ORDER and self is the address it was read from (self
 *   is the last store of the start). A major version that is not known must be refused; minor
 *   versions only add structures and fields.
 *
 * 2. THE SCHEMA
 *
 *   preamble.schema is an array of schema_record_count records, schema_record_bytes apart (at least
 *   sizeof(struct hm_schema_record); step by schema_record_bytes). Each names a field: structure,
 *   field, type, offset, size of one element, count of elements, kind. A record with an empty field
 *   name describes the structure itself: size is its stride in arrays, count the number of its
 *   fields. Kind HM_RECORD: the type is "struct hm_NAME", embedded; look NAME up. A reader takes
 *   every offset, size and count of sections 3 to 5 from here, and must accept structures and
 *   fields that it does not know, in any order, with any padding. The schema and all that follows
 *   are in writable private memory (.data or anonymous), thus in every default core.
 *
 * 3. WHAT THERE IS (names are structure.field)
 *
 *   root        one, at preamble.root. Tables: root.ranges (array of range, root.range_count),
 *               root.arenas (array of addresses, root.arena_count), root.threads (array of
 *               addresses, root.thread_count), root.bigs (array of big, root.big_count),
 *               root.classes (array of class, root.class_count, index 0 is no class). An entry is
 *               complete before the count that includes it is stored; entries never move and counts
 *               never fall. Entries of arenas and threads are never 0 once counted.
 *               [root.hot_start, root.hot_end) are words of the allocator outside of all tables, in
 *               its module's data: metadata as well, they hold no block.
 *   range       reserved address space, cut in units of 1 << root.unit_shift bytes (64 KiB). Unit u
 *               starts at range.base + (u << unit_shift). range.codes is the class map: one byte a
 *               unit; range.units the unit records, one a unit. Only units below range.top_index
 *               were ever used: neither map nor records need be read beyond it (memory there may
 *               not be readable). All metadata of a range is in [mapping_start, base); blocks are
 *               only in [base, base + (unit_count << unit_shift)).
 *   class map   code of unit u =
 *                 root.code_free                            free
 *                 root.code_slab_first .. code_slab_last    part of a slab of an automatic arena,
 *                                                           class code - code_slab_first + 1
 *                 root.code_named_first .. code_named_last  part of a slab of an arena of another
 *                                                           kind, or of one with remarks (below);
 *                                                           class code - code_named_first + 1
 *                 root.code_large_head                      first unit of a large block
 *                 root.code_large_rest                      further unit of one
 *                 root.code_purging                         free, its pages on their way back
 *   slab        class.slab_units consecutive units, all with the same code. unit.head of each is
 *               the index of the first one; only the record of the first one means more. A slab is
 *               there when the code of its first unit says so; a unit whose unit.head names a first
 *               unit with another code (or whose own code is free) is free: a slab being made or
 *               released. Blocks: unit.block_count of class.block_bytes each, block i at start of
 *               the slab + i * block_bytes. unit.bitmap is the address of ceil(block_count / 64)
 *               words; bit i % 64 of word i / 64 set = block i is free in the slab. Bits beyond
 *               block_count are 0. unit.arena is the arena's index. unit.free_count, .next and
 *               .prev belong to the arena and are true only while central.lock is 0.
 *   large       a block of unit.unit_count units from its head; it starts at the start of the unit.
 *               unit.requested_bytes as asked for, unit.usable_bytes what malloc_usable_size says
 *               (both of the head's record). Codes of the units behind the head are not needed for
 *               reading it: believe the head's record, cut at range.top_index. Units with
 *               code_large_rest that no head covers are free (growing, shrinking, going, or kept
 *               by a thread for its next large block).
 *   big         a block in a mapping of its own. Live when big.address is not 0; then
 *               mapping_start, mapping_bytes, requested_bytes, usable_bytes, arena are true.
 *   arena       arena.kind: 0 gone (its record is reused later), 1 automatic, 2 named (by the
 *               program; arena.name), 3 sampled (blocks picked for their stack; their notes are
 *               kept while all others have none), 4 ignored (allocated while the program wanted no
 *               leak told: roots, each). 2 to 4 are as named ones in all else.
 *               arena.centrals[class] is the central state of a class.
 *   central     central.stash is the address of an array of block addresses; [0, stash_count) of it
 *               are free ("cached"). They may belong to slabs of any automatic arena (one with
 *               remarks included).
 *   thread      the cache of a thread: thread.tid (0: record in no use), thread.arena, and
 *               thread.bins[class]. Slots are 8-byte words holding block addresses, counted from
 *               the start of the thread record itself: slot s is at address + 8 * s. Record and
 *               slots together take thread.mapping_bytes. Free ("cached") are the slots
 *                   [min(window.head, pend if pend is not 0), window.empty)
 *               of each bin, and the block thread.hand if not 0. Read them whatever tid is: a
 *               record whose thread died without our knowledge, or in a forked child, still holds
 *               free blocks ("orphaned cache").
 *
 *   stacks      root.stacks, when not 0, is the address of the one stack_table: who allocated.
 *               stack_table.nodes[i], 1 <= i < node_count, is a frame: stack_node.frame (address
 *               in the low HM_FRAME_ADDRESS_BITS, enum hm_frame_flag above, epoch in the top
 *               HM_FRAME_EPOCH_BITS) and the index of its caller's node (parent; 0: outermost, and
 *               parent < i always). A stack is the index of its innermost frame. Node 1 is the
 *               stack of which nothing is known: address 0, cut. A node whose frame is 0 is not
 *               written yet, and no block has its index; else it is complete, and never changes
 *               but for `recent`. Equal stacks have equal indices.
 *                 stack_table.modules[0, module_count): what was loaded where, with build-ids,
 *               also libraries that are gone; of those that some frame lies in, no others. A
 *               frame belongs to the module with start <= address < end and first_epoch <= epoch
 *               <= last_epoch; epochs count from 0 at each place anew, so that 0 says: no other
 *               module was ever there before. The last epoch, 4095, means this or a later one. A
 *               module that is gone has last_epoch = first_epoch.
 *                 All of it lies in [mapping_start, mapping_start + mapping_bytes): metadata, of
 *               which only parts may be readable; [0, node_count) and [0, module_count) are.
 *   note        of a block: stack that allocated it, stack that freed it, bytes asked for. Note k
 *               of unit u of a range is at range.notes + u * range.note_stride + k * sizeof(note);
 *               a slab's block i has note i of its first unit, a large block note 0 of its head, a
 *               big has its stack in the record. range.notes is 0 when there are none.
 *                 Which are to be believed: those of blocks of slabs of automatic arenas
 *               (unit.arena says which, not the code) only while stack_table.mode is
 *               HM_STACKS_FULL; all others (sampled, named, ignored arenas, large, big) always,
 *               in every mode.
 *                 What they say: of a live block `stack` is who allocated it (0: not known, the
 *               note says nothing) and `requested` what was asked for (of large and big blocks
 *               the record says it; here it is cut at 2^32-1); `freed` means nothing. Of a free
 *               block of a slab `stack` and `requested` are those of who had it last, `freed`
 *               where that was freed; each 0 when not known. A large block's note is 0 once it
 *               is free.
 *                 A live block with a stack is a sample, picked with the probability 1 -
 *               exp(-bytes asked for / stack_table.sample_bytes), when it belongs to a sampled
 *               arena, or the mode is not HM_STACKS_FULL. Else it stands for itself alone.
 *                 Notes are memory of [range.notes, range.notes + range.unit_count *
 *               range.note_stride): metadata, readable for units below range.top_index.
 *   remark      what the program said of an address (himalloc.h): root.remarks[0, remark_count),
 *               by remark.kind (enum hm_remark_kind; 0: taken back). Of HM_REMARK_IGNORE and
 *               HM_REMARK_TAG the address is the start of a block that is live as long as the
 *               remark is there; freeing the block takes them back first. A slab of an automatic
 *               arena that has one takes codes of named ones, so that freeing its blocks is the
 *               slow way; its blocks may be in caches all the same. The table is metadata.
 *   helper      root.helper_tid, when not 0, is a thread of the allocator's own that gives memory
 *               back. What its registers and stack hold is no reference of the program.
 *
 * 4. WHAT IS LIVE
 *
 *   A block of a slab is FREE when its bit is set, or it is in a stash, in a slot, or in a hand; it
 *   may be in several of these at once (idempotent). Else it is LIVE. large and big: by code and by
 *   address. This holds whenever the threads are stopped, wherever they are, but for the one block
 *   that a thread has in its hands in malloc or free: IN FLIGHT. Its answer is the old or the new
 *   one, never anything else, and never is there more than one a thread, with these exceptions that
 *   the caller asked for: realloc that moves shows old and new block live for a time, then only the
 *   new one (the old one is already free while the caller still holds the argument);
 *   himalloc_arena_destroy frees whole slabs, one store each. A thread is inside himalloc when its
 *   pc is in [root.text_start, root.text_end), or in libc's memcpy, memset or a syscall called from
 *   there; the block in flight is then in its registers or on its stack.
 *
 * 5. ORDER OF STORES (why 4 holds). A stopped thread's earlier stores are visible to whoever reads
 *   its memory, so program order of stores is enough; compiler barriers stand between them.
 *
 *     malloc      load slot[head]; head + 1 (from here on live)
 *     free        slot[head - 1] = block; head - 1 (from here on free)
 *     note        stack, requested, freed = 0: while the block is free still, before the store
 *                 that makes it live (malloc, fill, no cache), so that the old note is never
 *                 seen on the new block; freed: before the store that makes it free. A large or
 *                 big block is live with a note of 0 before it has its own, and again before it
 *                 is free. realloc in place: requested and stack while it is live. In between it
 *                 is the block in flight.
 *     fill        write slots below head; pend = lowest slot; then clear the bits, or lower
 *                 stash_count; (again for the next word of a bitmap;) then head = pend + 1 (the
 *                 first one is live: it is the caller's), then pend = 0
 *     flush       set the bits, or write the stash and raise stash_count (free twice); move the
 *                 remaining slots upward, from the high end on; then head
 *     grow bin    copy the slots to a new place, then {head, empty} in one 8-byte store
 *     exchange    hand = slot[i]; slot[i] = slot[j]; slot[j] = hand; hand = 0
 *     no cache    (named arenas, threads that are ending, check:full) malloc: clear the bit, or
 *                 lower stash_count; free: set the bit
 *     new slab    record and bitmap complete, codes of the further units, then code of the first
 *     release     (all blocks free) notes = 0, code of the first unit = free, then of the others
 *     remarked    codes of all its units (at most four) in one store
 *     remark      all other fields, then kind, then count; taken back: kind = 0
 *     full mode   begins: notes of all but sampled arenas = 0, then stack_table.mode; ends: mode,
 *                 then the notes. While they go, a stack may be seen without its size.
 *     new large   record complete, codes of the further units, then code of the head (live)
 *     free large  note of the head = 0, code of the head = free, then of the others; or, into the
 *                 thread's pocket: note = 0, code of the head = large_rest, the others stay, and no
 *                 head covers them. Out of it: record complete, then code of the head (live)
 *     grow        codes of the new units, then usable_bytes, unit_count, requested_bytes
 *     shrink      requested_bytes, unit_count, usable_bytes, then codes of the units given up
 *     big         all other fields, then address (live); free: address = 0, then munmap
 *     move big    mremap, then a new big as above, then the old one's address = 0: while
 *                 root.registry_lock is held, a live big may lie where nothing is mapped any more
 *     new record  (arena, thread, range) complete, then table entry, then count
 *     thread end  flush of every bin as above, then tid = 0
 *   In a forked child the records of threads that are gone keep the parent's tids until the child
 *   first needs central state; then their blocks go home to the bitmaps, as in flush.
 *
 * 6. DAMAGE. Nothing here is to be trusted: the program may have written over it. Facts that agree
 *   in a sound heap: unit.class_index = class of the code; unit.head = own index for a first unit;
 *   block_count = class.block_count; every slot and stash entry is the start of a block of its
 *   class in a slab of an automatic arena; heads of large blocks do not overlap; unit_count reaches
 *   no further than top_index; counts stay below the capacities in root. A lock is 0 or the tid of
 *   its holder (bit 31: somebody waits).
 */
#ifndef HIMALLOC_FORMAT_H
#define HIMALLOC_FORMAT_H

#include <stddef.h>
#include <stdint.h>

enum {
    HM_MAJOR = 1,
    HM_MINOR = 0,
    HM_NOTE_ROOT = 1,
    HM_ROOT_ALIGN = 65536,
};
#define HM_MAGIC      "himalloc heap 1"
#define HM_BYTE_ORDER 0x01020304u

/*
 *   OFFSET SIZE  struct hm_preamble
 *        0   16  magic                 HM_MAGIC with its terminating 0
 *       16    4  byte_order            HM_BYTE_ORDER as this machine stores it
 *       20    4  pointer_bytes         8
 *       24    4  major
 *       28    4  minor
 *       32    8  self                  address of this preamble; stored last
 *       40    8  root                  address of structure root
 *       48    8  schema                address of the first schema record
 *       56    4  schema_record_bytes   distance from one to the next
 *       60    4  schema_record_count
 *       64    4  structure_count       schema records with an empty field name
 *       68    4  preamble_bytes        sizeof(struct hm_preamble) of the writer
 */
struct hm_preamble {
    char magic[16];
    uint32_t byte_order;
    uint32_t pointer_bytes;
    uint32_t major;
    uint32_t minor;
    uint64_t self;
    uint64_t root;
    uint64_t schema;
    uint32_t schema_record_bytes;
    uint32_t schema_record_count;
    uint32_t structure_count;
    uint32_t preamble_bytes;
};
_Static_assert(offsetof(struct hm_preamble, byte_order) == 16, "preamble");
_Static_assert(offsetof(struct hm_preamble, major) == 24, "preamble");
_Static_assert(offsetof(struct hm_preamble, self) == 32, "preamble");
_Static_assert(offsetof(struct hm_preamble, schema) == 48, "preamble");
_Static_assert(offsetof(struct hm_preamble, structure_count) == 64, "preamble");
_Static_assert(sizeof(struct hm_preamble) == 72, "preamble");

/*
 *   OFFSET SIZE  struct hm_schema_record
 *        0   16  structure  name, 0-padded
 *       16   24  field      name; empty: the structure itself
 *       40   24  type       as in C: "uint32_t", "struct hm_bin", ...; empty for the structure
 *       64    4  offset     bytes from the start of the structure
 *       68    4  size       bytes of one element
 *       72    4  count      elements; of the structure itself: fields
 *       76    4  kind       enum hm_kind
 */
struct hm_schema_record {
    char structure[16];
    char field[24];
    char type[24];
    uint32_t offset;
    uint32_t size;
    uint32_t count;
    uint32_t kind;
};
_Static_assert(offsetof(struct hm_schema_record, field) == 16, "schema");
_Static_assert(offsetof(struct hm_schema_record, type) == 40, "schema");
_Static_assert(offsetof(struct hm_schema_record, offset) == 64, "schema");
_Static_assert(sizeof(struct hm_schema_record) == 80, "schema");

enum hm_kind {
    HM_STRUCTURE = 0, /* the structure itself */
    HM_UINT = 1,      /* unsigned number */
    HM_ADDRESS = 2,   /* unsigned number that is an address in the process, 0: none */
    HM_TEXT = 3,      /* count bytes of text, 0-padded */
    HM_RECORD = 4,    /* embedded structure */
};

enum {
    HM_CLASS_SLOTS = 81, /* classes 1..80; index 0 is no class */
    HM_RANGE_CAPACITY = 32,
    HM_ARENA_CAPACITY = 256,
    HM_THREAD_CAPACITY = 65536,
    HM_BIG_CAPACITY = 16384,
    HM_POCKET_ENTRIES = 8,
};

enum hm_arena_kind {
    HM_ARENA_GONE = 0,
    HM_ARENA_AUTOMATIC = 1,
    HM_ARENA_NAMED = 2,
    HM_ARENA_SAMPLED = 3,
    HM_ARENA_IGNORED = 4,
};

enum hm_stacks_mode { HM_STACKS_OFF = 0, HM_STACKS_SAMPLED = 1, HM_STACKS_FULL = 2 };

/* stack_node.frame: epoch:12 | flags:4 | address:48 */
enum { HM_FRAME_ADDRESS_BITS = 48, HM_FRAME_FLAG_BITS = 4, HM_FRAME_EPOCH_BITS = 12 };
enum hm_frame_flag {
    HM_FRAME_EXACT = 1,   /* the interrupted instruction itself; else a return address */
    HM_FRAME_GUESSED = 2, /* found by the frame pointer: no unwind information below */
    HM_FRAME_CUT = 4,     /* the walk ended here, before the outermost frame */
};

enum hm_remark_kind {
    HM_REMARK_NONE = 0,
    HM_REMARK_IGNORE = 1, /* the block around address is no leak, and holds what it points to */
    HM_REMARK_ROOT = 2,   /* [address, address + bytes) holds what it points to */
    HM_REMARK_TAG = 3,    /* remark.text is the program's word for the block */
};

/*
 * The lists. One field a line: F(S, kind, type, name) for one element, A(S, kind, type, name,
 * count) for several, S being the structure. The structures and the schema are both made from them,
 * so neither can drift; lines may change places or gain neighbours without a reader noticing.
 */
/* clang-format off */

/* {head, empty} of a bin: slots [head, empty) are cached. Together so that one store moves both.
 * ticks counts the blocks that were handed out: when it overflows, one of them is a sample. */
#define HM_WINDOW_FIELDS(F, A, S)                                                                  \
    F(S, UINT, uint16_t, head)                                                                     \
    F(S, UINT, uint16_t, ticks)                                                                    \
    F(S, UINT, uint32_t, empty)                                                                    \
    /* end */

/* A thread's cache of one class. `full` is where head may go down to; only its thread needs it. */
#define HM_BIN_FIELDS(F, A, S)                                                                     \
    F(S, RECORD, struct hm_window, window)                                                         \
    F(S, UINT, uint32_t, full)                                                                     \
    F(S, UINT, uint32_t, pend)                                                                     \
    /* end */

/* From slots_used on the words of the mapping are not yet given to any bin. sampled_at: the bytes
 * that the block must have to be the sample when its bin's ticks overflow; 0: none will be.
 * flushed: the bin ran over, and was not filled since. capacity_bytes: of all bins; misses, of the
 * last miss_count, say which grow. pocket_*: see pocket.c. No reader needs them. large_units: of
 * blocks out of the pocket, less those that went in. */
#define HM_THREAD_FIELDS(F, A, S)                                                                  \
    F(S, UINT, uint32_t, tid)                                                                      \
    F(S, UINT, uint32_t, arena)                                                                    \
    F(S, UINT, uint32_t, index)                                                                    \
    F(S, UINT, uint32_t, meets)                                                                    \
    F(S, UINT, uint32_t, slots_used)                                                               \
    F(S, UINT, uint32_t, miss_count)                                                               \
    F(S, ADDRESS, uint64_t, hand)                                                                  \
    F(S, UINT, uint64_t, mapping_bytes)                                                            \
    F(S, UINT, uint64_t, large_units)                                                              \
    F(S, UINT, uint64_t, capacity_bytes)                                                           \
    A(S, RECORD, struct hm_bin, bins, HM_CLASS_SLOTS)                                              \
    F(S, UINT, uint32_t, pocket_open)                                                              \
    F(S, UINT, uint32_t, pocket_claim)                                                             \
    F(S, UINT, uint32_t, pocket_count)                                                             \
    F(S, UINT, uint32_t, pocket_held)                                                              \
    F(S, UINT, uint32_t, pocket_uses)                                                              \
    F(S, UINT, uint32_t, pocket_seen)                                                              \
    A(S, UINT, uint64_t, pocket_start, HM_POCKET_ENTRIES)                                          \
    A(S, UINT, uint32_t, pocket_length, HM_POCKET_ENTRIES)                                         \
    A(S, UINT, uint8_t, flushed, HM_CLASS_SLOTS)                                                   \
    A(S, UINT, uint8_t, misses, HM_CLASS_SLOTS)                                                    \
    A(S, UINT, uint32_t, sampled_at, HM_CLASS_SLOTS)                                               \
    /* end */

/* Slabs with free blocks: list by unit.next/.prev, entries (range index << 32 | unit index) + 1. */
#define HM_CENTRAL_FIELDS(F, A, S)                                                                 \
    F(S, UINT, uint32_t, lock)                                                                     \
    F(S, UINT, uint32_t, stash_count)                                                              \
    F(S, UINT, uint32_t, stash_capacity)                                                           \
    F(S, UINT, uint32_t, stash_low)                                                                \
    F(S, ADDRESS, uint64_t, stash)                                                                 \
    F(S, UINT, uint64_t, partial_first)                                                            \
    F(S, UINT, uint64_t, partial_last)                                                             \
    F(S, UINT, uint64_t, slab_count)                                                               \
    F(S, UINT, uint64_t, free_count)                                                               \
    F(S, UINT, uint64_t, fill_count)                                                               \
    /* end */

#define HM_ARENA_FIELDS(F, A, S)                                                                   \
    F(S, UINT, uint32_t, index)                                                                    \
    F(S, UINT, uint32_t, kind)                                                                     \
    F(S, UINT, uint64_t, large_units)                                                              \
    A(S, TEXT, char, name, 32)                                                                     \
    A(S, RECORD, struct hm_central, centrals, HM_CLASS_SLOTS)                                      \
    /* end */

/* Of a slab (first unit), of a large block (head), or of a run of free units (first and last).
 * marks: UNIT_REMARKED, there may be remarks on one of its blocks; UNIT_NOTED, its note may not be
 * 0 (large blocks). stirred: when blocks last came home to the slab or left it, 0: not since its
 * free pages were given back (sweep.c). The allocator alone needs them. */
#define HM_UNIT_FIELDS(F, A, S)                                                                    \
    F(S, UINT, uint32_t, head)                                                                     \
    F(S, UINT, uint32_t, unit_count)                                                               \
    F(S, UINT, uint16_t, arena)                                                                    \
    F(S, UINT, uint16_t, class_index)                                                              \
    F(S, UINT, uint16_t, block_count)                                                              \
    F(S, UINT, uint16_t, stirred)                                                                  \
    F(S, UINT, uint32_t, free_count)                                                               \
    F(S, UINT, uint8_t, listed)                                                                    \
    F(S, UINT, uint8_t, marks)                                                                     \
    F(S, UINT, uint16_t, scan_index)                                                               \
    F(S, ADDRESS, uint64_t, bitmap)                                                                \
    F(S, UINT, uint64_t, next)                                                                     \
    F(S, UINT, uint64_t, prev)                                                                     \
    F(S, UINT, uint64_t, requested_bytes)                                                          \
    F(S, UINT, uint64_t, usable_bytes)                                                             \
    /* end */

/* ages: one byte a unit; 0 = the pages are known to be zero, else when the unit was last in use. */
#define HM_RANGE_FIELDS(F, A, S)                                                                   \
    F(S, ADDRESS, uint64_t, base)                                                                  \
    F(S, UINT, uint64_t, unit_count)                                                               \
    F(S, UINT, uint64_t, top_index)                                                                \
    F(S, UINT, uint64_t, committed_units)                                                          \
    F(S, UINT, uint64_t, described_units)                                                          \
    F(S, ADDRESS, uint64_t, codes)                                                                 \
    F(S, ADDRESS, uint64_t, ages)                                                                  \
    F(S, ADDRESS, uint64_t, units)                                                                 \
    F(S, ADDRESS, uint64_t, bitmaps)                                                               \
    F(S, ADDRESS, uint64_t, mapping_start)                                                         \
    F(S, UINT, uint64_t, mapping_bytes)                                                            \
    F(S, ADDRESS, uint64_t, notes)                                                                 \
    F(S, UINT, uint64_t, note_stride)                                                              \
    /* end */

#define HM_NOTE_FIELDS(F, A, S)                                                                    \
    F(S, UINT, uint32_t, stack)                                                                    \
    F(S, UINT, uint32_t, freed)                                                                    \
    F(S, UINT, uint32_t, requested)                                                                \
    /* end */

/* recent: the child that was asked for last; a hint for the allocator alone. */
#define HM_STACK_NODE_FIELDS(F, A, S)                                                              \
    F(S, UINT, uint64_t, frame)                                                                    \
    F(S, UINT, uint32_t, parent)                                                                   \
    F(S, UINT, uint32_t, recent)                                                                   \
    /* end */

/* [start, end): from its first to its last mapped byte, or a part that holds its code; bias: address
 * = bias + p_vaddr. path is path_bytes of text in the table's mapping. last_epoch is 2^32-1 while
 * the module is loaded. */
#define HM_MODULE_FIELDS(F, A, S)                                                                  \
    F(S, ADDRESS, uint64_t, start)                                                                 \
    F(S, ADDRESS, uint64_t, end)                                                                   \
    F(S, ADDRESS, uint64_t, bias)                                                                  \
    F(S, ADDRESS, uint64_t, path)                                                                  \
    F(S, UINT, uint32_t, path_bytes)                                                               \
    F(S, UINT, uint32_t, first_epoch)                                                              \
    F(S, UINT, uint32_t, last_epoch)                                                               \
    F(S, UINT, uint32_t, build_id_bytes)                                                           \
    A(S, UINT, uint8_t, build_id, 32)                                                              \
    /* end */

/* epoch: how often modules were seen to be gone. lost: stacks that found no room; their blocks have
 * the nearest outer stack that was there. */
#define HM_STACK_TABLE_FIELDS(F, A, S)                                                             \
    F(S, UINT, uint32_t, mode)                                                                     \
    F(S, UINT, uint32_t, epoch)                                                                    \
    F(S, UINT, uint64_t, sample_bytes)                                                             \
    F(S, ADDRESS, uint64_t, nodes)                                                                 \
    F(S, UINT, uint32_t, node_count)                                                               \
    F(S, UINT, uint32_t, node_capacity)                                                            \
    F(S, ADDRESS, uint64_t, modules)                                                               \
    F(S, UINT, uint32_t, module_count)                                                             \
    F(S, UINT, uint32_t, module_capacity)                                                          \
    F(S, UINT, uint64_t, lost)                                                                     \
    F(S, ADDRESS, uint64_t, mapping_start)                                                         \
    F(S, UINT, uint64_t, mapping_bytes)                                                            \
    /* end */

#define HM_REMARK_FIELDS(F, A, S)                                                                  \
    F(S, ADDRESS, uint64_t, address)                                                               \
    F(S, UINT, uint64_t, bytes)                                                                    \
    F(S, UINT, uint32_t, kind)                                                                     \
    A(S, TEXT, char, text, 44)                                                                     \
    /* end */

#define HM_BIG_FIELDS(F, A, S)                                                                     \
    F(S, ADDRESS, uint64_t, address)                                                               \
    F(S, ADDRESS, uint64_t, mapping_start)                                                         \
    F(S, UINT, uint64_t, mapping_bytes)                                                            \
    F(S, UINT, uint64_t, requested_bytes)                                                          \
    F(S, UINT, uint64_t, usable_bytes)                                                             \
    F(S, UINT, uint32_t, arena)                                                                    \
    F(S, UINT, uint32_t, stack)                                                                    \
    /* end */

/* reciprocal: offset in slab * reciprocal >> 35 = block index, exact for every offset in a slab. */
#define HM_CLASS_FIELDS(F, A, S)                                                                   \
    F(S, UINT, uint32_t, block_bytes)                                                              \
    F(S, UINT, uint32_t, block_count)                                                              \
    F(S, UINT, uint32_t, slab_units)                                                               \
    F(S, UINT, uint32_t, reciprocal)                                                               \
    /* end */

#define HM_ROOT_FIELDS(F, A, S)                                                                    \
    A(S, TEXT, char, version, 16)                                                                  \
    F(S, UINT, uint32_t, unit_shift)                                                               \
    F(S, UINT, uint32_t, class_count)                                                              \
    F(S, UINT, uint32_t, code_free)                                                                \
    F(S, UINT, uint32_t, code_slab_first)                                                          \
    F(S, UINT, uint32_t, code_slab_last)                                                           \
    F(S, UINT, uint32_t, code_named_first)                                                         \
    F(S, UINT, uint32_t, code_named_last)                                                          \
    F(S, UINT, uint32_t, code_large_head)                                                          \
    F(S, UINT, uint32_t, code_large_rest)                                                          \
    F(S, UINT, uint32_t, code_purging)                                                             \
    F(S, UINT, uint32_t, range_count)                                                              \
    F(S, UINT, uint32_t, range_capacity)                                                           \
    F(S, UINT, uint32_t, arena_count)                                                              \
    F(S, UINT, uint32_t, arena_capacity)                                                           \
    F(S, UINT, uint32_t, thread_count)                                                             \
    F(S, UINT, uint32_t, thread_capacity)                                                          \
    F(S, UINT, uint32_t, big_count)                                                                \
    F(S, UINT, uint32_t, big_capacity)                                                             \
    F(S, ADDRESS, uint64_t, ranges)                                                                \
    F(S, ADDRESS, uint64_t, arenas)                                                                \
    F(S, ADDRESS, uint64_t, threads)                                                               \
    F(S, ADDRESS, uint64_t, bigs)                                                                  \
    F(S, ADDRESS, uint64_t, classes)                                                               \
    F(S, ADDRESS, uint64_t, text_start)                                                            \
    F(S, ADDRESS, uint64_t, text_end)                                                              \
    F(S, ADDRESS, uint64_t, hot_start)                                                             \
    F(S, ADDRESS, uint64_t, hot_end)                                                               \
    F(S, UINT, uint32_t, registry_lock)                                                            \
    F(S, UINT, uint32_t, span_lock)                                                                \
    F(S, UINT, uint32_t, helper_tid)                                                               \
    F(S, UINT, uint32_t, check_mode)                                                               \
    F(S, UINT, uint64_t, free_units)                                                               \
    F(S, UINT, uint64_t, dirty_units)                                                              \
    F(S, ADDRESS, uint64_t, stacks)                                                                \
    F(S, ADDRESS, uint64_t, remarks)                                                               \
    F(S, UINT, uint32_t, remark_count)                                                             \
    F(S, UINT, uint32_t, remark_capacity)                                                          \
    /* end */

/* clang-format on */

/* In an order in which what is embedded comes before what embeds it. */
#define HM_STRUCTURES(S)                                                                           \
    S(window, HM_WINDOW_FIELDS)                                                                    \
    S(bin, HM_BIN_FIELDS)                                                                          \
    S(thread, HM_THREAD_FIELDS)                                                                    \
    S(central, HM_CENTRAL_FIELDS)                                                                  \
    S(arena, HM_ARENA_FIELDS)                                                                      \
    S(unit, HM_UNIT_FIELDS)                                                                        \
    S(range, HM_RANGE_FIELDS)                                                                      \
    S(big, HM_BIG_FIELDS)                                                                          \
    S(class, HM_CLASS_FIELDS)                                                                      \
    S(note, HM_NOTE_FIELDS)                                                                        \
    S(stack_node, HM_STACK_NODE_FIELDS)                                                            \
    S(module, HM_MODULE_FIELDS)                                                                    \
    S(stack_table, HM_STACK_TABLE_FIELDS)                                                          \
    S(remark, HM_REMARK_FIELDS)                                                                    \
    S(root, HM_ROOT_FIELDS)

#ifdef HM_DEFINE_STRUCTURES
/* Only the allocator defines them: to a reader they are names in the schema. */
#define HM_MEMBER(S, kind, type, name)              type name;
#define HM_MEMBER_ARRAY(S, kind, type, name, count) type name[count];
#define HM_STRUCT(name, FIELDS)                                                                    \
    struct hm_##name {                                                                             \
        FIELDS(HM_MEMBER, HM_MEMBER_ARRAY, name)                                                   \
    };
HM_STRUCTURES(HM_STRUCT)
#undef HM_MEMBER
#undef HM_MEMBER_ARRAY
#undef HM_STRUCT

#ifndef HM_LAYOUT_VARIANT /* set by the test that shuffles and pads the lists */
_Static_assert(sizeof(struct hm_window) == 8, "one store moves a bin");
_Static_assert(sizeof(struct hm_bin) == 16, "four bins a cache line");
_Static_assert(sizeof(struct hm_unit) == 64, "one cache line a unit");
_Static_assert(sizeof(struct hm_central) == 64, "one cache line a class");
_Static_assert(sizeof(struct hm_class) == 16, "class");
_Static_assert(sizeof(struct hm_range) == 104, "range");
_Static_assert(sizeof(struct hm_big) == 48, "big");
_Static_assert(sizeof(struct hm_note) == 12, "note");
_Static_assert(sizeof(struct hm_stack_node) == 16, "four frames a cache line");
#endif
#endif

#endif
