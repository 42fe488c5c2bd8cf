// What loading and watching plugins needs and Swift's Glibc module lacks: file seals, inotify, RTLD_NODELETE, and a clock
// for a condition with a deadline.
#ifndef CM_CLINUX_PLUGIN_H
#define CM_CLINUX_PLUGIN_H

#include <pthread.h>
#include <stdint.h>

/// An anonymous, executable file in memory that can be sealed. Descriptor (close-on-exec) or -errno.
int cm_sealable_file(const char *_Nonnull name);
/// From now on nobody can change the file's content or length, this process included. 0 or -errno.
int cm_seal_file(int fd);

/// Loads a shared object for good: RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE. NULL on failure; `cm_library_error` says why.
void *_Nullable cm_library_open(const char *_Nonnull path);
/// Whether an object with this DT_SONAME, or loaded by this path, is in the process already.
int cm_library_is_loaded(const char *_Nonnull name);
/// The calling thread's last failure of the two; valid until the next call.
const char *_Nonnull cm_library_error(void);
void *_Nullable cm_library_symbol(void *_Nonnull library, const char *_Nonnull name);
/// Address range of the loaded object that holds `address`. 0, or -1 if there is none.
int cm_library_range(const void *_Nonnull address, uint64_t *_Nonnull start, uint64_t *_Nonnull end);

/// Watches a directory for files that come, go, are replaced or change mode. Non-blocking, close-on-exec, or -errno.
int cm_directory_watch(const char *_Nonnull path);
/// Empties the queue of a watch. 1 if something had happened, 0 if nothing, -errno.
int cm_directory_watch_drain(int fd);

/// A condition variable whose deadlines are on the monotonic clock.
void cm_condition_init(pthread_cond_t *_Nonnull condition);
/// Waits until signalled or until `deadline` (monotonic nanoseconds). 0, or ETIMEDOUT.
int cm_condition_wait_until(pthread_cond_t *_Nonnull condition, pthread_mutex_t *_Nonnull mutex, uint64_t deadline);

#endif
