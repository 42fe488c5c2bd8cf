// Processes: Swift marks vfork as unavailable, and no Swift may run between fork and exec (runtime locks, malloc).
// posix_spawn lacks user, groups, limits, control group and death signal. So vfork and exec stand here as a whole.
#ifndef CM_CLINUX_SPAWN_H
#define CM_CLINUX_SPAWN_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/// The step that failed in the child; names for people are made in Swift.
enum cm_spawn_step {
    CM_SPAWN_FORK = 1,
    CM_SPAWN_SESSION,
    CM_SPAWN_TERMINAL,
    CM_SPAWN_CGROUP,
    CM_SPAWN_LIMIT,
    CM_SPAWN_DESCRIPTORS,
    CM_SPAWN_USER,
    CM_SPAWN_DIRECTORY,
    CM_SPAWN_PARENT,
    CM_SPAWN_EXEC,
};

struct cm_spawn_limit {
    int resource;
    uint64_t soft;
    uint64_t hard;
};

/// Everything is borrowed for the length of the call.
struct cm_spawn {
    /// With a slash: this file. Without: looked for in `search_path` (colon-separated).
    const char *_Nonnull program;
    const char *_Nonnull search_path;
    char *_Nullable const *_Nonnull arguments;    // ends with NULL
    char *_Nullable const *_Nonnull environment;  // ends with NULL
    /// Entered after the change of user; NULL: as the parent.
    const char *_Nullable directory;
    /// What becomes 0, 1, 2, … in the child; -1 means /dev/null. All others are closed at exec.
    const int *_Nonnull descriptors;
    size_t descriptor_count;
    /// 0: none, 1: a process group of its own, 2: a session (and group) of its own.
    int group;
    /// With a new session: descriptor 0 becomes its controlling terminal.
    int terminal;
    /// Open `cgroup.procs` of the control group to enter; -1: stay.
    int cgroup_procs;
    int change_user;
    uid_t user;
    gid_t user_group;
    const gid_t *_Nullable groups;
    size_t group_count;
    const struct cm_spawn_limit *_Nullable limits;
    size_t limit_count;
    /// The child gets this signal when the calling thread ends; 0: none.
    int death_signal;
    int umask;
};

/// Starts a program. The calling thread waits until exec has happened (about 1 ms). Returns the pid, `pidfd` set (close
/// on exec); or -errno with `failed_step` set, and then no child is left behind.
int cm_spawn_start(const struct cm_spawn *_Nonnull order, int *_Nonnull pidfd, int *_Nonnull failed_step);

/// Becomes another program in the same process: all descriptors but 0, 1 and 2 are closed. Returns only when it failed,
/// with -errno. close_range is not in every glibc that the agent runs on, hence here.
int cm_become(const char *_Nonnull program, char *_Nullable const *_Nonnull arguments);

/// How a process ended and what it used.
struct cm_exit {
    /// 1: exited with `value`; 2: ended by signal `value`; 0: still running.
    int kind;
    int value;
    uint64_t user_us;
    uint64_t system_us;
    uint64_t maximum_resident_bytes;
};

/// Takes the end of a child without waiting (waitid and wait4 with rusage). 0 or -errno.
int cm_reap(pid_t pid, struct cm_exit *_Nonnull exit);
int cm_pidfd_open(pid_t pid);
int cm_pidfd_signal(int pidfd, int signal);
/// Orphans below the calling process come to it instead of to init.
int cm_become_subreaper(void);

/// RLIMIT_ constants are an enum with a cast that Swift does not import.
static inline int cm_limit_open_files(void) { return 7; }
static inline int cm_limit_core(void) { return 4; }
static inline int cm_limit_processes(void) { return 6; }

#endif
