/* Suppressions: the pattern language, the file, and which groups they take out of a report. */
#include "analysis/suppressions.h"
#include "unit/tap.h"

static void matches(const char *pattern, const char *name, bool wanted)
{
    ok(suppression_matches(pattern, name) == wanted, "\"%s\" %s \"%s\"", pattern,
       wanted ? "matches" : "does not match", name);
}

static void test_patterns(void)
{
    matches("foo", "foo", true);
    matches("foo", "my_foo_bar", true);
    matches("foo", "fo", false);
    matches("foo", "f_o_o", false);
    matches("^foo", "foobar", true);
    matches("^foo", "my_foo", false);
    matches("foo$", "my_foo", true);
    matches("foo$", "foobar", false);
    matches("foo$", "foofoo", true);
    matches("^foo$", "foo", true);
    matches("^foo$", "foofoo", false);
    matches("f*o", "my_fghj_oh", true);
    matches("^f*o$", "fghj_o", true);
    matches("^f*o$", "fghj_oh", false);
    matches("^a*b*c$", "aXbXbXc", true);
    matches("^a*b*c$", "aXcXb", false);
    matches("*", "", true);
    matches("^$", "", true);
    matches("^$", "x", false);
    matches("^*$", "anything", true);
    matches("a^b", "a^b", true);
    matches("libfoo.so", "/usr/lib/libfoo.so.1", true);
    matches("ab", "aab", true);
    matches("aab$", "aaab", true);
    matches("*a*a*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false);
}

/* The pattern language by its definition: slow, and too plain to be wrong in the same way. */
static bool body_matches(const char *p, const char *end, const char *name, bool to_end)
{
    if (p == end)
        return !to_end || !*name;
    if (*p == '*')
        return body_matches(p + 1, end, name, to_end) ||
               (*name && body_matches(p, end, name + 1, to_end));
    return *p == *name && body_matches(p + 1, end, name + 1, to_end);
}

static bool plainly_matches(const char *pattern, const char *name)
{
    size_t length = strlen(pattern);
    bool from_start = pattern[0] == '^', to_end = length > from_start && pattern[length - 1] == '$';
    const char *p = pattern + from_start, *end = pattern + length - to_end;
    if (from_start)
        return body_matches(p, end, name, to_end);
    for (;; name++)
        if (body_matches(p, end, name, to_end))
            return true;
        else if (!*name)
            return false;
}

/* Every pattern of up to five signs against every name of up to five. */
static void test_all_short(void)
{
    static const char signs[] = "ab*^$", letters[] = "ab";
    uint64_t wrong = 0, tried = 0;
    for (unsigned p = 0; p < 6 * 6 * 6 * 6 * 6; p++) {
        char pattern[6] = "";
        for (unsigned rest = p, n = 0; rest % 6; rest /= 6)
            pattern[n++] = signs[rest % 6 - 1];
        for (unsigned k = 0; k < 3 * 3 * 3 * 3 * 3; k++) {
            char name[6] = "";
            for (unsigned rest = k, n = 0; rest % 3; rest /= 3)
                name[n++] = letters[rest % 3 - 1];
            tried++;
            if (suppression_matches(pattern, name) == plainly_matches(pattern, name))
                continue;
            if (!wrong++)
                printf("#   \"%s\" and \"%s\"\n", pattern, name);
        }
    }
    ok(tried > 1000000 && wrong == 0, "all short patterns as their definition says");
}

static void parses(const char *text, size_t wanted)
{
    struct suppressions s = {0};
    struct hi_err err;
    ok(suppressions_parse(&s, text, "test", &err) == HI_OK && s.items.count == wanted,
       "%zu patterns", wanted);
    suppressions_free(&s);
}

static void refuses(const char *text, const char *because)
{
    struct suppressions s = {0};
    struct hi_err err = {0};
    ok(suppressions_parse(&s, text, "file", &err) == HI_BAD_INPUT && strstr(err.message, because),
       "refused: %s", err.message);
    suppressions_free(&s);
}

static void test_file(void)
{
    struct hi_err err;
    struct suppressions s = {0};
    parses("", 0);
    parses("\n\n# a comment\n", 0);
    parses("leak:a\nleak:b", 2);
    parses("  leak:a \r\n\t# c\r\nleak:b b\r\n", 2);
    refuses("leak:a\nrace:b\n", "file:2");
    refuses("leak:\n", "file:1");
    refuses("foo", "leak:PATTERN");
    ok(suppressions_read(&s, "/nonexistent/file", &err) == HI_SYSTEM &&
           strstr(err.message, "/nonexistent/file"),
       "a file that is not there is named");
    suppressions_free(&s);
}

static size_t frames_of(void *context, const struct leak_group *of, struct frame_names *frames,
                        size_t most)
{
    uint64_t stack_id = of->stack_id;
    const struct frame_names *all = context;
    if (stack_id > 2 || most < 1)
        return 0;
    frames[0] = all[stack_id - 1];
    return 1;
}

static void add_group(struct leaks *leaks, enum mark kind, uint64_t stack, uint64_t bytes)
{
    struct leak_group *group = VECTOR_PUSH(&leaks->groups);
    if (!group)
        exit(1);
    *group = (struct leak_group){.number = (uint32_t)leaks->groups.count,
                                 .kind = kind,
                                 .stack_id = stack,
                                 .own = {1, bytes},
                                 .indirect = {2, 2 * bytes}};
    struct blocks_total *own =
        kind == MARK_DIRECT ? &leaks->totals.direct : &leaks->totals.possible;
    own->blocks++;
    own->bytes += bytes;
    leaks->totals.indirect.blocks += 2;
    leaks->totals.indirect.bytes += 2 * bytes;
}

static void test_groups(void)
{
    struct frame_names frames[] = {{"known_leak", "a.c", "prog"}, {"other", "b.c", "libx.so"}};
    struct leaks leaks = {0};
    struct suppressions s = {0};
    struct hi_err err;
    add_group(&leaks, MARK_DIRECT, 1, 100);
    add_group(&leaks, MARK_DIRECT, 2, 1000);
    add_group(&leaks, MARK_DIRECT, 0, 10);
    add_group(&leaks, MARK_POSSIBLE, 1, 7);
    bool parsed = suppressions_parse(&s, "leak:nowhere\nleak:^known*\n", "test", &err) == HI_OK;
    ok(parsed, "two patterns");
    ok(leaks_suppress(&leaks, &s, NULL, NULL), "without names");
    is_u64(leaks.groups.count, 4, "without stacks nothing is suppressed");
    struct leak_group *hanging = VECTOR_PUSH(&leaks.hanging), *other = VECTOR_PUSH(&leaks.hanging);
    if (!other)
        exit(1);
    *hanging = (struct leak_group){.kind = MARK_INDIRECT, .holder = leaks.groups.items[1].number};
    *other = (struct leak_group){.kind = MARK_INDIRECT, .holder = leaks.groups.items[0].number};
    ok(leaks_suppress(&leaks, &s, frames_of, frames), "with names");
    ok(leaks.hanging.count == 1 && leaks.hanging.items[0].holder == 2, "what hung off it, too");
    is_u64(leaks.groups.count, 2, "both groups of the stack are gone");
    is_u64(leaks.totals.direct.bytes, 1010, "... and out of the totals");
    is_u64(leaks.totals.possible.blocks, 0, "... of possible ones too");
    is_u64(leaks.totals.indirect.bytes, 2020, "... with what they hold");
    is_u64(s.items.items[0].total.blocks, 0, "a pattern that matches nothing suppresses nothing");
    is_u64(s.items.items[1].total.blocks, 6, "the other one says how many blocks");
    is_u64(s.items.items[1].total.bytes, 321, "... and bytes");
    leaks_free(&leaks);
    suppressions_free(&s);
}

int main(void)
{
    test_patterns();
    test_all_short();
    test_file();
    test_groups();
    return done();
}
