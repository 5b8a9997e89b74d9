/* The commands of answers_leaks.c, for the table in answers.c. */
#ifndef ANSWERS_LEAKS_H
#define ANSWERS_LEAKS_H

#include "answers.h"

HI_MUST_USE enum hi_code answer_summary(const struct report *report, const struct options *options,
                                        const struct place_finder *finder, enum status *status,
                                        struct hi_err *err);
HI_MUST_USE enum hi_code answer_leaks(const struct report *report, const struct options *options,
                                      const struct place_finder *finder, enum status *status,
                                      struct hi_err *err);

#endif
