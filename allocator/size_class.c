/*
 * size_class: the tables. CLASSES(X) lists X(class, size, size of the class below); everything else
 * is computed from it by the compiler.
 */
#include "size_class.h"

/* clang-format off */
#define CLASSES(X) \
    X(1, 16, 0) X(2, 32, 16) X(3, 48, 32) X(4, 64, 48) \
    X(5, 80, 64) X(6, 96, 80) X(7, 112, 96) X(8, 128, 112) \
    X(9, 144, 128) X(10, 160, 144) X(11, 176, 160) X(12, 192, 176) \
    X(13, 208, 192) X(14, 224, 208) X(15, 240, 224) X(16, 256, 240) \
    X(17, 288, 256) X(18, 320, 288) X(19, 352, 320) X(20, 384, 352) \
    X(21, 416, 384) X(22, 448, 416) X(23, 480, 448) X(24, 512, 480) \
    X(25, 576, 512) X(26, 640, 576) X(27, 704, 640) X(28, 768, 704) \
    X(29, 832, 768) X(30, 896, 832) X(31, 960, 896) X(32, 1024, 960) \
    X(33, 1152, 1024) X(34, 1280, 1152) X(35, 1408, 1280) X(36, 1536, 1408) \
    X(37, 1664, 1536) X(38, 1792, 1664) X(39, 1920, 1792) X(40, 2048, 1920) \
    X(41, 2304, 2048) X(42, 2560, 2304) X(43, 2816, 2560) X(44, 3072, 2816) \
    X(45, 3328, 3072) X(46, 3584, 3328) X(47, 3840, 3584) X(48, 4096, 3840) \
    X(49, 4608, 4096) X(50, 5120, 4608) X(51, 5632, 5120) X(52, 6144, 5632) \
    X(53, 6656, 6144) X(54, 7168, 6656) X(55, 7680, 7168) X(56, 8192, 7680) \
    X(57, 9216, 8192) X(58, 10240, 9216) X(59, 11264, 10240) X(60, 12288, 11264) \
    X(61, 13312, 12288) X(62, 14336, 13312) X(63, 15360, 14336) X(64, 16384, 15360) \
    X(65, 18432, 16384) X(66, 20480, 18432) X(67, 22528, 20480) X(68, 24576, 22528) \
    X(69, 26624, 24576) X(70, 28672, 26624) X(71, 30720, 28672) X(72, 32768, 30720) \
    X(73, 36864, 32768) X(74, 40960, 36864) X(75, 45056, 40960) X(76, 49152, 45056) \
    X(77, 53248, 49152) X(78, 57344, 53248) X(79, 61440, 57344) X(80, 65536, 61440)
/* clang-format on */

#define UNITS(bytes)  ((bytes) > 8192 ? 4 : 1)
#define BLOCKS(bytes) (UNITS(bytes) * UNIT_BYTES / (bytes))
/* 2^35 / bytes rounded up: 31 bits for 16 bytes. What rounding adds is below bytes <= 2^16, times
 * an offset below 2^18 still less than 2^35: exact for every offset. */
#define RECIPROCAL(bytes) (uint32_t)(((1ULL << RECIPROCAL_SHIFT) + (bytes)-1) / (bytes))

#define TABLE_ENTRY(class, bytes, below) [(below) / 16 + 1 ...(bytes) / 16] = class,
const uint8_t size_class_table[SMALL_MAX / 16 + 1] = {[0] = 1, CLASSES(TABLE_ENTRY)};

#define LIST_ENTRY(class, bytes, below)                                                            \
    [class] = {.block_bytes = (bytes),                                                             \
               .block_count = BLOCKS(bytes),                                                       \
               .slab_units = UNITS(bytes),                                                         \
               .reciprocal = RECIPROCAL(bytes)},
struct hm_class size_class_list[HM_CLASS_SLOTS] = {CLASSES(LIST_ENTRY)};

#define CHECK_ENTRY(class, bytes, below)                                                           \
    [class] = {UINT64_MAX / (bytes) + 1, (uint64_t)UNITS(bytes) * UNIT_BYTES - 1},
const struct class_check size_class_checks[HM_CLASS_SLOTS] = {CLASSES(CHECK_ENTRY)};

uint32_t size_class_aligned(size_t bytes, size_t alignment)
{
    if (alignment > UNIT_BYTES || bytes > SMALL_MAX)
        return 0;
    for (uint32_t c = size_class_of(bytes); c <= CLASS_COUNT; c++)
        if ((size_class_bytes(c) & (alignment - 1)) == 0)
            return c;
    return 0;
}
