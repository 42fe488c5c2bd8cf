#define _GNU_SOURCE
#include "clinux_errors.h"

#include <string.h>

const char *cm_error_text(int code) { return strerrordesc_np(code); }
