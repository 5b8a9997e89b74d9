/*
 * Two libraries of the same shape with other frames: the calls in them return to the same
 * addresses, and the frames around these calls are of different sizes.
 */
#ifndef PLUGIN_H
#define PLUGIN_H

typedef unsigned plugin_callback(void);

#define PLUGIN_DEFINE(bytes)                                                                       \
    unsigned plugin_call(plugin_callback *f);                                                      \
    unsigned plugin_other(plugin_callback *f);                                                     \
    unsigned plugin_first(plugin_callback *f);                                                     \
    unsigned plugin_call(plugin_callback *f)                                                       \
    {                                                                                              \
        volatile char pad[bytes];                                                                  \
        pad[0] = 1;                                                                                \
        return f() + pad[0];                                                                       \
    }                                                                                              \
    unsigned plugin_other(plugin_callback *f)                                                      \
    {                                                                                              \
        volatile char pad[bytes];                                                                  \
        pad[0] = 2;                                                                                \
        return plugin_call(f) + pad[0];                                                            \
    }                                                                                              \
    unsigned plugin_first(plugin_callback *f)                                                      \
    {                                                                                              \
        volatile char pad[bytes];                                                                  \
        pad[0] = 3;                                                                                \
        return f() * 3 + pad[0];                                                                   \
    }

#endif
