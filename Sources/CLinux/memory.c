#include "clinux_memory.h"

#include <malloc.h>

void cm_release_memory(void) { malloc_trim(0); }

void cm_single_arena(void) { mallopt(M_ARENA_MAX, 1); }

void cm_keep_memory(int bytes) {
    mallopt(M_MMAP_THRESHOLD, bytes);
    mallopt(M_TRIM_THRESHOLD, bytes);
}
