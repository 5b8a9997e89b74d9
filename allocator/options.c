/*
 * options: HIMALLOC=key:value,key:value from the environment.
 *
 * Read once, as soon as the C library has an environment (the dynamic linker allocates before
 * that), by the first allocation or the constructor of at_exit, whichever comes first; what
 * concerns the heap is applied as soon as there is one. Ignored in a process that gained privileges
 * (AT_SECURE). Keys of features that this build does not have are accepted in silence, so that one
 * setting serves all versions; a key that nobody knows gets a note under check:full alone.
 *
 * HEAPCHECK, with any of the values that gperftools knew, asks for the check at exit in gperftools'
 * wording; HIMALLOC has the last word. Without a word on stacks, who asks for the check
 * at exit gets those of all blocks.
 */
#define _GNU_SOURCE
#include "options.h"

#include "pages.h"
#include "stacks.h"
#include "state.h"
#include "thread_cache.h"

#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

extern char **environ;
bool options_background = true;
uint32_t options_stacks_mode, options_sample_bytes = SAMPLE_BYTES;
static bool stacks_given;
struct options_leakcheck options_leakcheck = {.exit_code = 23};
struct options_heapprofile options_heapprofile;
static uint8_t options_check = CHECK_FAST;
static bool is_read, is_applied, is_running;

static bool token_is(const char *text, size_t length, const char *word)
{
    return strlen(word) == length && memcmp(text, word, length) == 0;
}

static void option_set_check(const char *value, size_t length)
{
    if (token_is(value, length, "off"))
        options_check = CHECK_OFF;
    else if (token_is(value, length, "full"))
        options_check = CHECK_FULL;
    else if (token_is(value, length, "fast"))
        options_check = CHECK_FAST;
}

static bool option_set_stacks(const char *value, size_t length)
{
    static const char *const modes[] = {"off", "sampled", "full"};
    for (uint32_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
        if (token_is(value, length, modes[i])) {
            options_stacks_mode = i;
            stacks_given = true;
        }
    return true;
}

/* A decimal number below 2^32; false: it is none. */
static bool token_number(const char *value, size_t length, uint32_t *number)
{
    uint64_t n = 0;
    for (size_t i = 0; i < length; i++) {
        if (value[i] < '0' || value[i] > '9')
            return false;
        n = n * 10 + (unsigned)(value[i] - '0');
        if (n > UINT32_MAX)
            return false;
    }
    *number = (uint32_t)n;
    return length > 0;
}

static void option_set_exit_code(const char *value, size_t length)
{
    uint32_t code;
    if (token_number(value, length, &code) && code < 256)
        options_leakcheck.exit_code = (uint8_t)code;
}

/* always, or the one process that is to say it. */
static void option_set_say(const char *value, size_t length)
{
    uint32_t pid;
    if (token_number(value, length, &pid))
        options_leakcheck.say_pid = pid;
    else
        options_leakcheck.say_always = token_is(value, length, "always");
}

/* What belongs to the check at exit. */
static bool option_set_leakcheck(const char *key, size_t key_length, const char *value,
                                 size_t length)
{
    struct options_leakcheck *o = &options_leakcheck;
    struct option_text text = {value, length};
    if (token_is(key, key_length, "leakcheck"))
        o->at_exit = token_is(value, length, "exit");
    else if (token_is(key, key_length, "exitcode"))
        option_set_exit_code(value, length);
    else if (token_is(key, key_length, "report"))
        o->report = text;
    else if (token_is(key, key_length, "suppressions"))
        o->suppressions = text;
    else if (token_is(key, key_length, "style"))
        o->style = text;
    else if (token_is(key, key_length, "profile"))
        o->profile = text;
    else if (token_is(key, key_length, "say"))
        option_set_say(value, length);
    else
        return false;
    return true;
}

/* gperftools' variable: each of its values asks for the same here. */
static void option_set_heapcheck(const char *value)
{
    static const char *const modes[] = {"minimal",   "normal", "strict",
                                        "draconian", "local",  "as-is"};
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
        if (strcmp(value, modes[i]) == 0) {
            options_leakcheck.at_exit = options_leakcheck.say_always = true;
            options_leakcheck.heapcheck = true;
            options_leakcheck.style = (struct option_text){"gperftools", strlen("gperftools")};
        }
}

/* As gperftools does it: who finds the value unmarked marks it for those that it will start, so
 * that they do not write over its files. */
static void option_set_heapprofile(char *value)
{
    struct options_heapprofile *o = &options_heapprofile;
    o->prefix = (struct option_text){value, strlen(value)};
    o->is_child = (*value & 0x80) != 0;
    *value = (char)(*value | 0x80);
}

static bool option_set(const char *key, size_t key_length, const char *value, size_t length)
{
    uint32_t number;
    if (token_is(key, key_length, "check")) {
        option_set_check(value, length);
        return true;
    }
    if (token_is(key, key_length, "background")) {
        options_background = !token_is(value, length, "off");
        return true;
    }
    if (token_is(key, key_length, "stacks"))
        return option_set_stacks(value, length);
    if (token_is(key, key_length, "sample")) {
        if (token_number(value, length, &number) && number > 0)
            options_sample_bytes = number;
        return true;
    }
    return option_set_leakcheck(key, key_length, value, length);
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

static void options_find(void)
{
    const char *himalloc = NULL, *heapcheck = NULL;
    for (char **e = environ; *e; e++) {
        if (**e != 'H' || ((*e)[1] != 'I' && (*e)[1] != 'E'))
            continue; /* HOME and the like, without a look at the words below */
        if (!himalloc && strncmp(*e, "HIMALLOC=", 9) == 0)
            himalloc = *e + 9;
        else if (!heapcheck && strncmp(*e, "HEAPCHECK=", 10) == 0)
            heapcheck = *e + 10;
        else if (strncmp(*e, "HEAPPROFILE=", 12) == 0 && (*e)[12])
            option_set_heapprofile(*e + 12);
        else if (strncmp(*e, "HEAPPROFILESIGNAL=", 18) == 0)
            token_number(*e + 18, strlen(*e + 18), &options_heapprofile.signal);
    }
    if (heapcheck)
        option_set_heapcheck(heapcheck);
    if (himalloc) {
        size_t length = 0;
        const char *unknown = options_parse(himalloc, &length);
        if (unknown && options_check == CHECK_FULL)
            note_unknown(unknown, length);
    }
}

/* Who asks for leaks wants to know whose they are. Tables for samples would take a good part of the
 * addresses of a program that has few. */
static uint32_t stacks_by_default(void)
{
    if (options_leakcheck.at_exit || options_heapprofile.prefix.length)
        return HM_STACKS_FULL;
    return pages_address_limit() == SIZE_MAX ? HM_STACKS_SAMPLED : HM_STACKS_OFF;
}

static void stacks_apply(void)
{
    if (!stacks_set(options_stacks_mode, options_sample_bytes))
        stacks_set(HM_STACKS_OFF, options_sample_bytes);
}

void options_read(void)
{
    if (!is_read && environ) {
        if (!getauxval(AT_SECURE))
            options_find();
        is_read = true; /* not before: another thread would apply what is not there yet */
    }
    if (!is_read || is_applied || !hm_hot.root)
        return;
    is_applied = true;
    hm_hot.check_mode = options_check;
    hm_hot.root->check_mode = options_check;
    if (options_check == CHECK_FULL)
        thread_cache_disable();
    if (!stacks_given)
        options_stacks_mode = stacks_by_default();
    if (getauxval(AT_BASE) || is_running)
        stacks_apply();
}

void options_running(void)
{
    is_running = true;
    options_read();
    if (is_applied && !getauxval(AT_BASE))
        stacks_apply();
}
