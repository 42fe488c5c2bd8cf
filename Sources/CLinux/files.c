#define _GNU_SOURCE
#include "clinux_files.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

int cm_open_beneath(int root, const char *path, int flags, mode_t mode, int links) {
    struct open_how how;
    memset(&how, 0, sizeof how);
    how.flags = (uint64_t)(unsigned)(flags | O_CLOEXEC);
    how.mode = flags & (O_CREAT | 020000000 /* O_TMPFILE without O_DIRECTORY */) ? mode : 0;
    how.resolve = RESOLVE_NO_MAGICLINKS | (links == 2 ? RESOLVE_IN_ROOT : RESOLVE_BENEATH) | (links == 1 ? RESOLVE_NO_SYMLINKS : 0);
    // EAGAIN: a rename raced with the look-up of "..".
    for (int attempt = 0; attempt < 16; attempt++) {
        int fd = (int)syscall(SYS_openat2, root, path, &how, sizeof how);
        if (fd >= 0) return fd;
        if (errno != EINTR && errno != EAGAIN) return -errno;
    }
    return -EAGAIN;
}

int cm_memory_file(const char *name, int close_on_exec) {
    int fd = memfd_create(name, close_on_exec ? MFD_CLOEXEC : 0);
    return fd < 0 ? -errno : fd;
}

int cm_reserve(int fd, int64_t length) {
    return fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, length) < 0 ? -errno : 0;
}

int cm_start_writing(int fd, int64_t offset, int64_t count) {
    return sync_file_range(fd, offset, count, SYNC_FILE_RANGE_WRITE) < 0 ? -errno : 0;
}

int cm_write_out(int fd, int64_t offset, int64_t count) {
    unsigned how = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
    return sync_file_range(fd, offset, count, how) < 0 ? -errno : 0;
}

int cm_rename_new(int from_directory, const char *from, int to_directory, const char *to) {
    return renameat2(from_directory, from, to_directory, to, RENAME_NOREPLACE) < 0 ? -errno : 0;
}

int cm_sync_file_system(int fd) { return syncfs(fd) < 0 ? -errno : 0; }

int cm_packet_socket(void) {
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    return fd < 0 ? -errno : fd;
}

int cm_packet_pair(int *first, int *second) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0) return -errno;
    *first = pair[0];
    *second = pair[1];
    return 0;
}

int cm_accept(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int address(struct sockaddr_un *address, const char *path) {
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof address->sun_path) return -ENAMETOOLONG;
    strcpy(address->sun_path, path);
    return 0;
}

int cm_unix_bind(int socket, const char *path, int backlog) {
    struct sockaddr_un to;
    int status = address(&to, path);
    if (status < 0) return status;
    if (bind(socket, (struct sockaddr *)&to, sizeof to) < 0) return -errno;
    return listen(socket, backlog) < 0 ? -errno : 0;
}

int cm_unix_connect(int socket, const char *path) {
    struct sockaddr_un to;
    int status = address(&to, path);
    if (status < 0) return status;
    return connect(socket, (struct sockaddr *)&to, sizeof to) < 0 ? -errno : 0;
}

int cm_pipe(int *read_end, int *write_end, int capacity) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) return -errno;
    if (capacity > 0) (void)fcntl(ends[1], F_SETPIPE_SZ, capacity);
    *read_end = ends[0];
    *write_end = ends[1];
    return 0;
}

int cm_set_close_on_exec(int fd, int on) { return fcntl(fd, F_SETFD, on ? FD_CLOEXEC : 0) < 0 ? -errno : 0; }

int cm_in_memory(const char *path) {
    struct statfs status;
    if (statfs(path, &status) != 0) return -errno;
    return status.f_type == TMPFS_MAGIC || (unsigned)status.f_type == RAMFS_MAGIC;
}
