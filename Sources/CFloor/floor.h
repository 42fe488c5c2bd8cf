// Shared by the floors: sockets, growing buffers, the WebSocket handshake and frames.
#ifndef CM_FLOOR_INTERNAL_H
#define CM_FLOOR_INTERNAL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

struct buffer {
    unsigned char *bytes;
    size_t count, capacity;
};

/// Room for `extra` bytes behind the present ones; the place of the first.
unsigned char *buffer_room(struct buffer *buffer, size_t extra);
void buffer_append(struct buffer *buffer, const void *bytes, size_t count);
/// Drops bytes from the front.
void buffer_drop(struct buffer *buffer, size_t count);

int floor_connect(uint16_t port);
/// The next connection of a listener that does not block; waits for it without using the processor that others are measured on.
int floor_accept(int listener);
void floor_nonblocking(int fd);
uint64_t floor_now(void);
/// Sends what it can of `buffer` and drops it; -1 when the socket failed.
int floor_flush(int fd, struct buffer *buffer);

/// The answer to an upgrade request of `count` bytes; 0 when there is no key.
size_t floor_upgrade_answer(const char *request, size_t count, char *answer, size_t capacity);
extern const char floor_upgrade_request[];

/// One frame at `bytes`: its header's and payload's length, unmasked in place. 0 when it is not complete.
size_t floor_frame(unsigned char *bytes, size_t count, unsigned char **payload, size_t *length);
/// Writes the header of a final binary frame without mask; its length.
size_t floor_header(unsigned char *bytes, size_t payload);

#endif
