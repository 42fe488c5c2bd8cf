#define _GNU_SOURCE
#include "clinux_spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

_Static_assert(RLIMIT_NOFILE == 7 && RLIMIT_CORE == 4 && RLIMIT_NPROC == 6, "resource numbers of Linux");

/// The child of vfork runs in its parent's memory: only system calls, no malloc, no stdio, and no glibc wrapper that
/// talks to other threads (setuid and its kin do; hence the raw calls). It reports by plain stores, because the
/// parent's thread sleeps until exec or _exit.
struct report {
    volatile int step;
    volatile int error;
};

static void fail(struct report *report, int step) {
    report->step = step;
    report->error = errno;
    _exit(127);
}

static void reset_signals(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = SIG_DFL;
    for (int signal = 1; signal <= SIGRTMAX; signal++) sigaction(signal, &action, NULL);
}

/// First all out of the way of the target numbers, then each into its place.
static int place_descriptors(const struct cm_spawn *order) {
    int count = (int)order->descriptor_count;
    int moved[count > 0 ? count : 1];
    for (int i = 0; i < count; i++) {
        int from = order->descriptors[i];
        if (from < 0) {
            int null = open("/dev/null", O_RDWR | O_CLOEXEC);
            if (null < 0) return -1;
            moved[i] = fcntl(null, F_DUPFD_CLOEXEC, count);
        } else {
            moved[i] = fcntl(from, F_DUPFD_CLOEXEC, count);
        }
        if (moved[i] < 0) return -1;
    }
    for (int i = 0; i < count; i++)
        if (dup2(moved[i], i) < 0) return -1;
    // Our own descriptors are close-on-exec anyway; this covers what libraries opened without it.
    syscall(SYS_close_range, (unsigned)count, ~0U, 4U /* CLOSE_RANGE_CLOEXEC */);
    return 0;
}

/// Tries each directory of the search path, as execvp does, but with the child's PATH and without malloc.
static void execute(const struct cm_spawn *order) {
    if (strchr(order->program, '/')) {
        execve(order->program, order->arguments, order->environment);
        return;
    }
    char path[4096];
    size_t name = strlen(order->program);
    int denied = 0;
    for (const char *start = order->search_path; *start;) {
        const char *end = strchrnul(start, ':');
        size_t length = (size_t)(end - start);
        if (length > 0 && length + 1 + name < sizeof path) {
            memcpy(path, start, length);
            path[length] = '/';
            memcpy(path + length + 1, order->program, name + 1);
            execve(path, order->arguments, order->environment);
            if (errno == EACCES) denied = 1;
            else if (errno != ENOENT && errno != ENOTDIR) return;
        }
        start = *end ? end + 1 : end;
    }
    errno = denied ? EACCES : ENOENT;
}

static void child(const struct cm_spawn *order, pid_t parent, struct report *report) {
    reset_signals();
    if (order->group == 2 && setsid() < 0) fail(report, CM_SPAWN_SESSION);
    if (order->group == 1 && setpgid(0, 0) < 0) fail(report, CM_SPAWN_SESSION);
    if (order->cgroup_procs >= 0 && write(order->cgroup_procs, "0", 1) != 1) fail(report, CM_SPAWN_CGROUP);
    if (place_descriptors(order) < 0) fail(report, CM_SPAWN_DESCRIPTORS);
    if (order->terminal && ioctl(0, TIOCSCTTY, 0) < 0) fail(report, CM_SPAWN_TERMINAL);
    for (size_t i = 0; i < order->limit_count; i++) {
        struct rlimit64 limit = {order->limits[i].soft, order->limits[i].hard};
        if (syscall(SYS_prlimit64, 0, order->limits[i].resource, &limit, NULL) < 0) fail(report, CM_SPAWN_LIMIT);
    }
    if (order->change_user) {
        if (syscall(SYS_setgroups, order->group_count, order->groups) < 0) fail(report, CM_SPAWN_USER);
        gid_t group = order->user_group;
        if (syscall(SYS_setresgid, group, group, group) < 0) fail(report, CM_SPAWN_USER);
        uid_t user = order->user;
        if (syscall(SYS_setresuid, user, user, user) < 0) fail(report, CM_SPAWN_USER);
    }
    if (order->directory && chdir(order->directory) < 0) fail(report, CM_SPAWN_DIRECTORY);
    if (order->death_signal) {
        // After the change of user, which clears it. A parent that died before this line is seen by its pid.
        if (prctl(PR_SET_PDEATHSIG, order->death_signal) < 0) fail(report, CM_SPAWN_PARENT);
        if (getppid() != parent) {
            errno = ESRCH;
            fail(report, CM_SPAWN_PARENT);
        }
    }
    umask((mode_t)order->umask);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execute(order);
    fail(report, CM_SPAWN_EXEC);
}

__attribute__((noinline)) int cm_spawn_start(const struct cm_spawn *order, int *pidfd, int *failed_step) {
    struct report report = {0, 0};
    sigset_t all, before;
    pid_t parent = getpid();
    *failed_step = 0;
    *pidfd = -1;
    // No handler of ours may run in the child while it shares our memory.
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t pid = vfork();
    if (pid == 0) {
        child(order, parent, &report);
        _exit(127);
    }
    int fork_error = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (pid < 0) {
        *failed_step = CM_SPAWN_FORK;
        return -fork_error;
    }
    if (report.step) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {}
        *failed_step = report.step;
        return -report.error;
    }
    *pidfd = cm_pidfd_open(pid);
    if (*pidfd < 0) {
        // Only without descriptors or memory; a process that cannot be watched must not run.
        int error = -*pidfd;
        kill(pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {}
        *failed_step = CM_SPAWN_FORK;
        return -error;
    }
    return pid;
}

int cm_become(const char *program, char *const arguments[]) {
    syscall(SYS_close_range, 3U, ~0U, 4U /* CLOSE_RANGE_CLOEXEC */);
    execve(program, arguments, environ);
    return -errno;
}

int cm_reap(pid_t pid, struct cm_exit *result) {
    int status = 0;
    struct rusage usage;
    memset(result, 0, sizeof *result);
    pid_t got;
    do got = wait4(pid, &status, WNOHANG, &usage);
    while (got < 0 && errno == EINTR);
    if (got < 0) return -errno;
    if (got == 0) return 0;
    result->kind = WIFSIGNALED(status) ? 2 : 1;
    result->value = WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
    result->user_us = (uint64_t)usage.ru_utime.tv_sec * 1000000u + (uint64_t)usage.ru_utime.tv_usec;
    result->system_us = (uint64_t)usage.ru_stime.tv_sec * 1000000u + (uint64_t)usage.ru_stime.tv_usec;
    result->maximum_resident_bytes = (uint64_t)usage.ru_maxrss * 1024u;
    return 0;
}

int cm_pidfd_open(pid_t pid) {
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    return fd < 0 ? -errno : fd;
}

int cm_pidfd_signal(int pidfd, int signal) {
    return syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0) < 0 ? -errno : 0;
}

int cm_become_subreaper(void) { return prctl(PR_SET_CHILD_SUBREAPER, 1) < 0 ? -errno : 0; }
