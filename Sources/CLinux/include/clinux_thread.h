// Threads and signals: what Swift's Glibc module leaves out (pthread_setname_np, signalfd, thread-local variables).
#ifndef CM_CLINUX_THREAD_H
#define CM_CLINUX_THREAD_H

#include <stddef.h>
#include <stdint.h>

/// Names the calling thread as `ps -L` and debuggers show it; cut at 15 bytes.
void cm_thread_set_name(const char *_Nonnull name);

/// One pointer per thread: the event loop whose thread this is, or NULL. A C thread-local costs one load, while
/// pthread_getspecific behind a lazily made key costs a once-check and a call; this is read for each job.
void *_Nullable cm_thread_loop(void);
void cm_thread_set_loop(void *_Nullable loop);

/// Blocks the given signals in the calling thread (and in threads that it starts later). 0 or -errno.
int cm_signals_block(const int *_Nonnull signals, size_t count);
/// A non-blocking, close-on-exec signalfd for the given signals, or -errno.
int cm_signals_descriptor(const int *_Nonnull signals, size_t count);
/// The next pending signal number of a signalfd, 0 if there is none, -errno on failure.
int cm_signals_next(int descriptor);

#endif
