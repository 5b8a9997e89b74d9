/* What is lost, and who allocated what there is: summary, leaks, export; see answers.h. Stacks are
 * gathered first and named in one batch, then everything is written. */
#include "answers_leaks.h"

#include "report/profile.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static enum hi_code add_stacks(struct call_stacks *stacks, const struct leak_group *groups,
                               size_t count, struct hi_err *err)
{
    enum hi_code code = HI_OK;
    for (size_t i = 0; i < count && code == HI_OK; i++)
        code = call_stacks_add(stacks, groups[i].heap, groups[i].stack_id, err);
    return code;
}

/* Name the stacks of the first most groups, and of what hangs off groups if that is shown. */
static enum hi_code name_leaks(struct call_stacks *stacks, const struct leaks *leaks, size_t most,
                               bool hanging, struct hi_err *err)
{
    size_t count = most < leaks->groups.count ? most : leaks->groups.count;
    enum hi_code code = add_stacks(stacks, leaks->groups.items, count, err);
    if (code == HI_OK && hanging)
        code = add_stacks(stacks, leaks->hanging.items, leaks->hanging.count, err);
    return code == HI_OK ? call_stacks_name(stacks, err) : code;
}

enum hi_code answer_summary(const struct report *report, const struct options *options,
                            const struct place_finder *finder, enum status *status,
                            struct hi_err *err)
{
    struct leaks leaks = {0};
    struct fragmentation fragmentation;
    struct call_stacks stacks;
    struct report named = *report;
    bool known = report->in->is_marked && report->in->heaps->count;
    enum hi_code code = known ? leaks_find(&leaks, report->in, err) : HI_OK;
    (void)options;
    (void)finder;
    call_stacks_begin(&stacks, report->in);
    named.stacks = &stacks;
    if (code == HI_OK)
        code =
            name_leaks(&stacks, &leaks, report_summary_rows(report, leaks.groups.count), true, err);
    if (code == HI_OK) {
        fragmentation_measure(&fragmentation, report->in->heaps);
        report_summary(&named, known ? &leaks : NULL, &fragmentation);
    }
    call_stacks_free(&stacks);
    leaks_free(&leaks);
    *status = STATUS_CLEAN;
    return code;
}

static enum hi_code report_in_style(const struct report *report, const struct options *options,
                                    const struct leaks *leaks,
                                    const struct suppressions *suppressions, struct hi_err *err)
{
    enum hi_code code = HI_OK;
    const char *style = options->style;
    if (!leaks || !style || options->json || strcmp(style, "text") == 0) {
        report_leaks(report, leaks, suppressions);
        return HI_OK;
    }
    if (strcmp(style, "lsan") == 0)
        code = report_leaks_lsan(report, leaks, err);
    else
        code = report_leaks_gperftools(report, leaks, err);
    if (code == HI_OK && suppressions)
        report_suppressions(report, suppressions);
    return code;
}

/* Text that the program brings along. A live target may run on already: it is constant there. */
static enum hi_code read_embedded(struct suppressions *suppressions, struct target *target,
                                  hi_addr address, struct hi_err *err)
{
    enum { MOST = 1 << 20 };
    char *text = malloc(MOST + 1);
    if (!text)
        return hi_no_memory(err);
    text[target_peek(target, address, text, MOST)] = '\0';
    enum hi_code code = suppressions_parse(suppressions, text, "the program's suppressions", err);
    free(text);
    return code;
}

static enum hi_code read_suppressions(struct suppressions *suppressions,
                                      const struct inspection *in, const struct options *options,
                                      struct hi_err *err)
{
    enum hi_code code = HI_OK;
    if (options->suppressions)
        code = suppressions_read(suppressions, options->suppressions, err);
    if (code == HI_OK && options->suppressions_at)
        code = read_embedded(suppressions, in->target, options->suppressions_at, err);
    return code;
}

static enum hi_code find_leaks(struct leaks *leaks, struct call_stacks *stacks,
                               struct suppressions *suppressions, const struct inspection *in,
                               struct hi_err *err)
{
    enum hi_code code = leaks_find(leaks, in, err);
    if (code == HI_OK)
        code = name_leaks(stacks, leaks, SIZE_MAX, true, err);
    if (code == HI_OK && !leaks_suppress(leaks, suppressions, suppressions_stack_names, stacks))
        code = hi_no_memory(err);
    return code;
}

/* leaks --profile: only when there is something in it. */
static enum hi_code save_profile(const struct report *report, const struct leaks *leaks,
                                 const char *path, struct hi_err *err)
{
    struct allocations all;
    struct buffer out = {0};
    enum hi_code code = allocations_lost(&all, leaks, err);
    if (code != HI_OK)
        return code;
    struct profile profile = {
        .in = report->in, .all = &all, .stacks = report->stacks, .is_leaks = true};
    allocations_by_stack(&all);
    profile_gperftools(&out, &profile);
    allocations_free(&all);
    int file = buffer_ok(&out) ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666) : -1;
    if (!buffer_ok(&out))
        code = hi_no_memory(err);
    else if (file < 0)
        code = hi_fail(err, HI_SYSTEM, "cannot write %s: %s", path, strerror(errno));
    else
        code = buffer_write(&out, file, path, err);
    if (file >= 0 && close(file) != 0 && code == HI_OK)
        code = hi_fail(err, HI_SYSTEM, "cannot write %s: %s", path, strerror(errno));
    buffer_free(&out);
    return code;
}

enum hi_code answer_leaks(const struct report *report, const struct options *options,
                          const struct place_finder *finder, enum status *status,
                          struct hi_err *err)
{
    struct leaks leaks = {0};
    struct suppressions suppressions = {0};
    struct call_stacks stacks;
    struct report named = *report;
    bool known = report->in->is_marked, asked = options->suppressions || options->suppressions_at;
    enum hi_code code = HI_OK;
    (void)finder;
    call_stacks_begin(&stacks, report->in);
    named.stacks = &stacks;
    code = read_suppressions(&suppressions, report->in, options, err);
    if (code == HI_OK && known)
        code = find_leaks(&leaks, &stacks, &suppressions, report->in, err);
    bool found = leaks.totals.direct.blocks > 0;
    named.profile = found ? options->profile : NULL;
    if (code == HI_OK && named.profile)
        code = save_profile(&named, &leaks, named.profile, err);
    bool silent = options->if_found && !found && known && inspection_complete(report->in);
    if (code == HI_OK && !silent)
        code = report_in_style(&named, options, known ? &leaks : NULL, asked ? &suppressions : NULL,
                               err);
    *status = found ? STATUS_FOUND : STATUS_CLEAN;
    call_stacks_free(&stacks);
    leaks_free(&leaks);
    suppressions_free(&suppressions);
    return code;
}

/* -- profiles --------------------------------------------------------------------------------- */

static enum hi_code add_allocations(struct call_stacks *stacks, const struct allocations *all,
                                    struct hi_err *err)
{
    enum hi_code code = HI_OK;
    for (size_t i = 0; i < all->items.count && code == HI_OK; i++)
        code = call_stacks_add(stacks, all->items.items[i].heap, all->items.items[i].stack_id, err);
    return code == HI_OK ? call_stacks_name(stacks, err) : code;
}

static enum hi_code gather_lost(struct allocations *all, struct call_stacks *stacks,
                                const struct inspection *in, const struct options *options,
                                struct hi_err *err)
{
    struct leaks leaks = {0};
    struct suppressions suppressions = {0};
    enum hi_code code = read_suppressions(&suppressions, in, options, err);
    if (code == HI_OK)
        code = find_leaks(&leaks, stacks, &suppressions, in, err);
    if (code == HI_OK)
        code = allocations_lost(all, &leaks, err);
    leaks_free(&leaks);
    suppressions_free(&suppressions);
    return code;
}

static enum hi_code check_stacks(const struct allocations *all, struct hi_err *err)
{
    if (all->exact.blocks || all->sampled.blocks || !all->unknown.blocks)
        return HI_OK;
    return hi_fail(err, HI_UNSUPPORTED,
                   "no call stacks are kept in this heap; a program that is started with "
                   "LD_PRELOAD=libhimalloc.so and HIMALLOC=stacks:full remembers all");
}

static enum hi_code write_format(struct buffer *out, struct allocations *all,
                                 const struct profile *profile, const char *format,
                                 struct hi_err *err)
{
    if (strcmp(format, "pprof") == 0)
        return profile_pprof(out, profile, err);
    if (strcmp(format, "flamegraph") == 0)
        return profile_flamegraph(out, profile, err);
    if (!allocations_are_samples(all))
        allocations_by_stack(all);
    profile_gperftools(out, profile);
    return buffer_ok(out) ? HI_OK : hi_no_memory(err);
}

enum hi_code answer_export(const struct inspection *in, const struct options *options,
                           struct buffer *out, struct hi_err *err)
{
    struct allocations all = {0};
    struct call_stacks stacks;
    if (options->leaks && !in->is_marked)
        return hi_fail(err, HI_STOPPED, "interrupted before it was known what is lost");
    call_stacks_begin(&stacks, in);
    enum hi_code code = options->leaks ? gather_lost(&all, &stacks, in, options, err)
                                       : allocations_live(&all, in, err);
    if (code == HI_OK && !options->leaks)
        code = add_allocations(&stacks, &all, err);
    if (code == HI_OK)
        code = check_stacks(&all, err);
    struct profile profile = {.in = in, .all = &all, .stacks = &stacks, .is_leaks = options->leaks};
    if (code == HI_OK)
        code = write_format(out, &all, &profile, options->format, err);
    allocations_free(&all);
    call_stacks_free(&stacks);
    return code;
}
