// A machine that can lose its power: runs a program and keeps, outside of it, only what it has synced.
//
//   power seed ROOT STORE             what lies under ROOT now counts as durable
//   power run STORE PROGRAM ARGS…     runs the program; each fsync and fdatasync of it and of its children, before it
//                                     returns, copies the file, or the entries of the directory, into STORE
//                                     before that, STORE/fail names a file (the end of its path): its next sync fails with EIO
//                                     and what was written to it and not synced is gone, as when the kernel drops pages
//                                     that a disk did not take; STORE/fail is then STORE/failed
//   power restore STORE ROOT          makes ROOT what the disk would hold: files as they were last synced (empty when
//                                     they never were), under the names that their directories had when those were synced
//
// The program is traced (ptrace, woken by seccomp for these two calls alone), so nothing is linked into it and static
// programs and children with an environment of their own are seen too. SIGKILL to `power run` is the power cut: the kernel
// kills all that it traces (PTRACE_O_EXITKILL). Stricter than most file systems: neither time nor fsync of a file makes its
// name durable, and what was written and not synced is gone for certain.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static void die(const char *what) {
    fprintf(stderr, "power: %s: %s\n", what, strerror(errno));
    exit(99);
}

// Inode numbers come again; with the time of birth they name one file for ever.
static int key_of(int at, const char *name, int flags, char key[64], struct statx *status) {
    if (statx(at, name, flags, STATX_BASIC_STATS | STATX_BTIME, status) != 0) return -1;
    snprintf(key, 64, "%llu-%lld-%u", (unsigned long long)status->stx_ino, (long long)status->stx_btime.tv_sec,
             status->stx_btime.tv_nsec);
    return 0;
}

static void copy_bytes(int from, int to) {
    static char buffer[1 << 20];
    off_t at = 0;
    ssize_t count;
    while ((count = pread(from, buffer, sizeof buffer, at)) > 0) {
        for (ssize_t done = 0; done < count;) {
            ssize_t written = write(to, buffer + done, (size_t)(count - done));
            if (written < 0) die("write");
            done += written;
        }
        at += count;
    }
    if (count < 0) die("read");
}

// Replaces STORE/PREFIX-KEY as a whole: a cut in the middle leaves what was synced before.
static int begin(const char *store, char path[4096]) {
    snprintf(path, 4096, "%s/new", store);
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (file < 0) die(path);
    return file;
}

static void put(const char *store, const char *fresh, char prefix, const char *key) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%c-%s", store, prefix, key);
    if (rename(fresh, path) != 0) die(path);
}

static void keep_file(const char *store, int file, const char *key) {
    char fresh[4096];
    int to = begin(store, fresh);
    copy_bytes(file, to);
    close(to);
    put(store, fresh, 'f', key);
}

static void keep_directory(const char *store, int directory, const char *key) {
    char fresh[4096];
    int to = begin(store, fresh);
    int again = openat(directory, ".", O_RDONLY | O_DIRECTORY);
    DIR *entries = again < 0 ? NULL : fdopendir(again);
    if (!entries) die("a directory");
    struct dirent *entry;
    while ((entry = readdir(entries))) {
        struct statx status;
        char name[64];
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        if (key_of(again, entry->d_name, AT_SYMLINK_NOFOLLOW, name, &status) != 0) continue;
        char kind = S_ISDIR(status.stx_mode) ? 'd' : S_ISREG(status.stx_mode) ? 'f' : 'o';
        dprintf(to, "%c %o %s %s\n", kind, status.stx_mode & 07777, name, entry->d_name);
    }
    closedir(entries);
    close(to);
    put(store, fresh, 'd', key);
}

static void keep(const char *store, int file) {
    struct statx status;
    char key[64];
    if (key_of(file, "", AT_EMPTY_PATH, key, &status) != 0) die("statx");
    if (S_ISDIR(status.stx_mode)) keep_directory(store, file, key);
    else if (S_ISREG(status.stx_mode)) keep_file(store, file, key);
}

static void seed(const char *store, int directory) {
    keep(store, directory);
    int again = openat(directory, ".", O_RDONLY | O_DIRECTORY);
    DIR *entries = fdopendir(again);
    struct dirent *entry;
    while (entries && (entry = readdir(entries))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        struct stat status;
        if (fstatat(again, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0) continue;
        if (!S_ISDIR(status.st_mode) && !S_ISREG(status.st_mode)) continue;
        int file = openat(again, entry->d_name, O_RDONLY | O_NOFOLLOW);
        if (file < 0) die(entry->d_name);
        if (S_ISDIR(status.st_mode)) seed(store, file);
        else keep(store, file);
        close(file);
    }
    closedir(entries);
}

static void restore(const char *store, const char *key, int target) {
    char path[4096];
    snprintf(path, sizeof path, "%s/d-%s", store, key);
    FILE *list = fopen(path, "r");
    if (!list) return;  // The directory was never synced: it is there and empty.
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, list) > 0) {
        char kind, name[64];
        unsigned mode;
        int at = 0;
        line[strcspn(line, "\n")] = 0;
        if (sscanf(line, "%c %o %63s %n", &kind, &mode, name, &at) < 3 || !at) die("a list");
        if (kind == 'd') {
            if (mkdirat(target, line + at, mode | 0700) != 0) die(line + at);
            int inner = openat(target, line + at, O_RDONLY | O_DIRECTORY);
            restore(store, name, inner);
            close(inner);
        } else if (kind == 'f') {
            int to = openat(target, line + at, O_WRONLY | O_CREAT | O_EXCL, mode);
            if (to < 0) die(line + at);
            fchmod(to, mode);
            snprintf(path, sizeof path, "%s/f-%s", store, name);
            int from = open(path, O_RDONLY);
            if (from >= 0) {
                copy_bytes(from, to);
                close(from);
            }
            close(to);
        }
    }
    free(line);
    fclose(list);
}

// Whether this sync is the one that fails. The pages that it loses come back as they were last synced; the length stays.
static int fails(const char *store, const char *link, int file) {
    char order[4096], done[4096], wanted[256] = "", name[4096], key[64], path[4096];
    struct statx status;
    snprintf(order, sizeof order, "%s/fail", store);
    FILE *list = fopen(order, "r");
    if (!list) return 0;
    if (fscanf(list, "%255s", wanted) != 1) wanted[0] = 0;
    fclose(list);
    ssize_t length = readlink(link, name, sizeof name - 1);
    if (length < 0 || !wanted[0]) return 0;
    name[length] = 0;
    size_t end = strlen(wanted);
    if ((size_t)length < end || strcmp(name + length - end, wanted) != 0) return 0;
    if (key_of(file, "", AT_EMPTY_PATH, key, &status) != 0) die("statx");
    snprintf(path, sizeof path, "%s/f-%s", store, key);
    int to = open(link, O_WRONLY), from = open(path, O_RDONLY);
    if (to < 0 || from < 0) die("what was synced before");
    copy_bytes(from, to);
    struct stat kept;
    if (fstat(from, &kept) != 0) die("fstat");
    if ((off_t)status.stx_size > kept.st_size &&
        (ftruncate(to, kept.st_size) != 0 || ftruncate(to, (off_t)status.stx_size) != 0)) die("ftruncate");
    close(from);
    close(to);
    snprintf(done, sizeof done, "%s/failed", store);
    if (rename(order, done) != 0) die(order);
    return 1;
}

// At the stop before a system call: it is not made and answers EIO.
static void refuse_call(pid_t who) {
    struct user_regs_struct registers;
    if (ptrace(PTRACE_GETREGS, who, 0, &registers) != 0) die("registers");
    registers.orig_rax = (unsigned long long)-1;
    registers.rax = (unsigned long long)-EIO;
    if (ptrace(PTRACE_SETREGS, who, 0, &registers) != 0) die("registers");
}

static void stop_at_syncs(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fsync, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fdatasync, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        die("seccomp");
}

static int run(const char *store, char **arguments) {
    pid_t child = fork();
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, 0, 0) != 0) die("ptrace");
        raise(SIGSTOP);
        stop_at_syncs();
        execv(arguments[0], arguments);
        die(arguments[0]);
    }
    int status;
    if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) die("the child");
    long options = PTRACE_O_EXITKILL | PTRACE_O_TRACESECCOMP | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE;
    if (ptrace(PTRACE_SETOPTIONS, child, 0, options) != 0) die("ptrace options");
    ptrace(PTRACE_CONT, child, 0, 0);
    int result = 0;
    unsigned long syncs = 0;
    for (;;) {
        pid_t who = waitpid(-1, &status, __WALL);
        if (who < 0 && errno == EINTR) continue;
        if (who < 0) break;  // Nobody is left.
        if (!WIFSTOPPED(status)) {
            if (who == child) result = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
            continue;
        }
        int signal = WSTOPSIG(status), event = status >> 16;
        if (event == PTRACE_EVENT_SECCOMP) {
            struct __ptrace_syscall_info info;
            if (ptrace(PTRACE_GET_SYSCALL_INFO, who, sizeof info, &info) > 0) {
                char path[64];
                snprintf(path, sizeof path, "/proc/%d/fd/%llu", who, (unsigned long long)info.seccomp.args[0]);
                int file = open(path, O_RDONLY);
                if (file >= 0) {
                    if (fails(store, path, file)) refuse_call(who);
                    else keep(store, file);
                    close(file);
                    syncs++;
                }
            }
            signal = 0;
        } else if (event || signal == SIGTRAP) {
            signal = 0;
        } else if (signal == SIGSTOP) {
            signal = 0;  // The first word of a new thread or child.
        }
        ptrace(PTRACE_CONT, who, 0, signal);
    }
    fprintf(stderr, "power: %lu syncs were kept\n", syncs);
    return result;
}

int main(int count, char **words) {
    char path[4096], key[64];
    struct statx status;
    if (count == 4 && !strcmp(words[1], "seed")) {
        int root = open(words[2], O_RDONLY | O_DIRECTORY);
        if (root < 0 || key_of(root, "", AT_EMPTY_PATH, key, &status) != 0) die(words[2]);
        snprintf(path, sizeof path, "%s/root", words[3]);
        FILE *file = fopen(path, "w");
        if (!file) die(path);
        fputs(key, file);
        fclose(file);
        seed(words[3], root);
        return 0;
    }
    if (count >= 4 && !strcmp(words[1], "run")) return run(words[2], words + 3);
    if (count == 4 && !strcmp(words[1], "restore")) {
        snprintf(path, sizeof path, "%s/root", words[2]);
        FILE *file = fopen(path, "r");
        if (!file || fscanf(file, "%63s", key) != 1) die(path);
        fclose(file);
        if (mkdir(words[3], 0700) != 0) die(words[3]);
        int root = open(words[3], O_RDONLY | O_DIRECTORY);
        restore(words[2], key, root);
        return 0;
    }
    fprintf(stderr, "usage: power seed ROOT STORE | run STORE PROGRAM ARGS… | restore STORE ROOT\n");
    return 2;
}
