/* The growing array's one function; see vector.h. */
#include "base/vector.h"

#include <stdint.h>

void *vector_push(void *items_address, size_t *count, size_t *capacity, size_t item_bytes)
{
    char *items;
    memcpy(&items, items_address, sizeof items);
    if (*count == *capacity) {
        size_t wanted = *capacity ? *capacity * 2 : 8;
        if (wanted > SIZE_MAX / 2 / item_bytes)
            return NULL;
        char *grown = realloc(items, wanted * item_bytes);
        if (!grown)
            return NULL;
        items = grown;
        memcpy(items_address, &items, sizeof items);
        *capacity = wanted;
    }
    char *item = items + (*count)++ * item_bytes;
    memset(item, 0, item_bytes);
    return item;
}
