// epoll and eventfd: not part of Swift's Glibc module (sys/epoll.h and sys/eventfd.h are not in its map).
#ifndef CM_CLINUX_EPOLL_H
#define CM_CLINUX_EPOLL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

/// `EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET` as one constant: the enum's bit 31 does not fit Swift's Int32 import.
static inline uint32_t cm_epoll_all_edges(void) { return EPOLLIN | EPOLLOUT | EPOLLRDHUP | (uint32_t)EPOLLET; }
/// The same without EPOLLOUT.
static inline uint32_t cm_epoll_read_edges(void) { return EPOLLIN | EPOLLRDHUP | (uint32_t)EPOLLET; }
static inline uint32_t cm_epoll_read_level(void) { return EPOLLIN; }

int cm_epoll_create(void);
/// Registers `fd` once; `context` comes back with each event. 0 or -errno.
int cm_epoll_add(int epoll, int fd, uint32_t events, void *context);
/// Other events for the same descriptor; what is ready already is reported at once. 0 or -errno.
int cm_epoll_modify(int epoll, int fd, uint32_t events, void *context);
int cm_epoll_remove(int epoll, int fd);
/// Waits at most `timeout_ms` (-1: for ever). The number of events, or -errno.
int cm_epoll_wait(int epoll, struct epoll_event *events, int capacity, int timeout_ms);
/// epoll_event is packed to 12 bytes on x86-64, which Swift's stride does not follow: an array of them is only walked in C.
static inline void *cm_epoll_context(const struct epoll_event *events, int index) { return events[index].data.ptr; }
static inline uint32_t cm_epoll_events(const struct epoll_event *events, int index) { return events[index].events; }
static inline size_t cm_epoll_array_bytes(int capacity) { return sizeof(struct epoll_event) * (size_t)capacity; }
/// A non-blocking, close-on-exec eventfd.
int cm_eventfd(void);
int cm_eventfd_signal(int fd);
int cm_eventfd_drain(int fd);

#endif
