/* See plugin.h. */
#include "programs/modules/plugin.h"

PLUGIN_DEFINE(88)
