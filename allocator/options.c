/*
 * options: HIMALLOC=key:value,key:value from the environment.
 *
 * Read once, at the first allocation, or as soon as the C library has an environment (the dynamic
 * linker allocates before that). Ignored in a process that gained privileges (AT_SECURE). Keys of
 * features that this build does not have are accepted in silence, so that one setting serves all
 * versions; a key that nobody knows gets a note under check:full alone.
 */
#define _GNU_SOURCE
#include "options.h"

#include "state.h"
#include "thread_cache.h"

#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

extern char **environ;
bool options_background = true;
static uint8_t options_state; /* 1: read */

static bool token_is(const char *text, size_t length, const char *word)
{
    return strlen(word) == length && memcmp(text, word, length) == 0;
}

static void option_set_check(const char *value, size_t length)
{
    if (token_is(value, length, "off"))
        hm_hot.check_mode = CHECK_OFF;
    else if (token_is(value, length, "full"))
        hm_hot.check_mode = CHECK_FULL;
    else if (token_is(value, length, "fast"))
        hm_hot.check_mode = CHECK_FAST;
}

static bool option_set(const char *key, size_t key_length, const char *value, size_t length)
{
    static const char *const later[] = {"stacks",   "sample",       "leakcheck",
                                        "exitcode", "suppressions", "report"};
    if (token_is(key, key_length, "check")) {
        option_set_check(value, length);
        return true;
    }
    if (token_is(key, key_length, "background")) {
        options_background = !token_is(value, length, "off");
        return true;
    }
    for (size_t i = 0; i < sizeof(later) / sizeof(later[0]); i++)
        if (token_is(key, key_length, later[i]))
            return true;
    return false;
}

/* All pairs; the first key that is not known, or NULL. */
static const char *options_parse(const char *text, size_t *unknown_length)
{
    const char *unknown = NULL;
    while (*text) {
        size_t pair = strcspn(text, ",");
        size_t key = strcspn(text, ":,");
        const char *value = key < pair ? text + key + 1 : text + pair;
        size_t length = (size_t)(text + pair - value);
        if (key > 0 && !option_set(text, key, value, length) && !unknown) {
            unknown = text;
            *unknown_length = key;
        }
        text += pair;
        text += *text == ',';
    }
    return unknown;
}

static void note_unknown(const char *key, size_t length)
{
    char line[128] = "himalloc: unknown key in HIMALLOC: ";
    size_t at = strlen(line);
    length = length > 64 ? 64 : length;
    memcpy(line + at, key, length);
    line[at + length] = '\n';
    ssize_t ignored = write(STDERR_FILENO, line, at + length + 1);
    (void)ignored;
}

void options_read(void)
{
    if (options_state || !environ)
        return;
    options_state = 1;
    if (getauxval(AT_SECURE))
        return;
    for (char **e = environ; *e; e++) {
        if (strncmp(*e, "HIMALLOC=", 9) != 0)
            continue;
        size_t length = 0;
        const char *unknown = options_parse(*e + 9, &length);
        if (unknown && hm_hot.check_mode == CHECK_FULL)
            note_unknown(unknown, length);
        break;
    }
    if (hm_hot.root)
        hm_hot.root->check_mode = hm_hot.check_mode;
    if (hm_hot.check_mode == CHECK_FULL)
        thread_cache_disable();
}
