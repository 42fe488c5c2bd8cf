// Files: openat2 has no wrapper in glibc 2.36, memfd_create and fallocate's flags are GNU extensions.
#ifndef CM_CLINUX_FILES_H
#define CM_CLINUX_FILES_H

#include <stdint.h>
#include <sys/types.h>

/// Opens `path` below `root` (a directory's descriptor). The kernel refuses every way out: absolute paths, `..` above
/// the root, links that lead out, magic links; with `links` 1 any symbolic link at all, with 2 absolute paths and links
/// begin at the root instead of being refused. Descriptor (close-on-exec) or -errno; -ENOSYS before Linux 5.6.
int cm_open_beneath(int root, const char *_Nonnull path, int flags, mode_t mode, int links);
/// An anonymous file in memory that may be executed through /proc/self/fd. Descriptor or -errno.
int cm_memory_file(const char *_Nonnull name, int close_on_exec);
/// Reserves blocks without changing the length. 0 or -errno.
int cm_reserve(int fd, int64_t length);
/// Begins to write dirty pages of the range to the disk and does not wait for them (sync_file_range, behind _GNU_SOURCE).
int cm_start_writing(int fd, int64_t offset, int64_t count);
/// The same, and waits until the disk has taken them. Makes nothing durable: the disk's cache is not flushed. 0 or -errno.
int cm_write_out(int fd, int64_t offset, int64_t count);
/// renameat2 with RENAME_NOREPLACE: a name that is there stays (-EEXIST); -EINVAL where the file system cannot. 0 or -errno.
int cm_rename_new(int from_directory, const char *_Nonnull from, int to_directory, const char *_Nonnull to);
/// syncfs (behind _GNU_SOURCE). 0 or -errno.
int cm_sync_file_system(int fd);
/// A SOCK_SEQPACKET Unix socket, non-blocking and close-on-exec: accept4 and the type flags are not in Swift's module.
int cm_packet_socket(void);
int cm_packet_pair(int *_Nonnull first, int *_Nonnull second);
int cm_accept(int listener);
/// Binds or connects to a path of at most 107 bytes. 0 or -errno.
int cm_unix_bind(int socket, const char *_Nonnull path, int backlog);
int cm_unix_connect(int socket, const char *_Nonnull path);
/// A pipe, both ends close-on-exec; capacity 0 keeps the kernel's size (64 KiB). 0 or -errno.
int cm_pipe(int *_Nonnull read_end, int *_Nonnull write_end, int capacity);
/// 1: the file system of `path` is a tmpfs or ramfs (statfs and its magic numbers are not in Swift's module). 0, or -errno.
int cm_in_memory(const char *_Nonnull path);
/// 0, or -errno: marks the descriptor close-on-exec or not.
int cm_set_close_on_exec(int fd, int on);

#endif
