/* remark: what the program said of an address; see remark.c. */
#ifndef HIMALLOC_REMARK_H
#define HIMALLOC_REMARK_H

#include "state.h"

enum remark_result { REMARK_DONE, REMARK_NO_BLOCK, REMARK_NO_ROOM };

/* Of the live block around p: HM_REMARK_IGNORE, or HM_REMARK_TAG with its text (NULL: taken back).
 */
enum remark_result remark_block(const void *p, enum hm_remark_kind kind, const char *text);
enum remark_result remark_root(const void *p, size_t bytes);
bool remark_unroot(const void *p, size_t bytes);
/* The block at p is about to be free: what was said of it goes. */
void remark_forget(const void *p);
/* The same of one that is in no slab. */
void remark_forget_large(const void *p);

#endif
