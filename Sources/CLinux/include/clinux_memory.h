// Memory of the C library: malloc_trim and mallopt are not in Swift's Glibc module.
#ifndef CM_CLINUX_MEMORY_H
#define CM_CLINUX_MEMORY_H

/// Gives free memory back to the kernel.
void cm_release_memory(void);
/// All threads share one heap from now on.
void cm_single_arena(void);
/// Blocks from `bytes` on, and free memory at the end of the heap beyond that, go back to the kernel at once; less is kept.
void cm_keep_memory(int bytes);

#endif
