/*
 * A growing array of one type, by macro: VECTOR(struct mapping) mappings; is a struct with
 * .items, .count and .capacity. VECTOR_PUSH returns a pointer to a zeroed new item, or NULL when
 * memory is out; pushing may move the items, so hold indexes, not pointers, across a push.
 */
#ifndef BASE_VECTOR_H
#define BASE_VECTOR_H

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define VECTOR(type)                                                                               \
    struct {                                                                                       \
        type *items;                                                                               \
        size_t count, capacity;                                                                    \
    }

/* Room for one more item of item_bytes; the item's address, zeroed, or NULL. */
void *vector_push(void *items_address, size_t *count, size_t *capacity, size_t item_bytes);

#define VECTOR_PUSH(vector)                                                                        \
    ((__typeof__((vector)->items))vector_push((void *)&(vector)->items, &(vector)->count,          \
                                              &(vector)->capacity, sizeof *(vector)->items))

#define VECTOR_FREE(vector)                                                                        \
    do {                                                                                           \
        free((vector)->items);                                                                     \
        (vector)->items = NULL;                                                                    \
        (vector)->count = (vector)->capacity = 0;                                                  \
    } while (0)

#endif
