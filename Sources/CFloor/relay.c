// The floor of a command's round trip: an HTTP request becomes a message to an agent, its answer the HTTP answer.
// No identity, no policy, no record: what is left is sockets and copying.
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cfloor.h"
#include "floor.h"

enum { MAXIMUM = 65536 };

struct peer {
    int fd, is_agent, dirty;
    uint32_t number;
    struct buffer in, out;
};

static struct peer *peers[MAXIMUM];
static struct peer *agents[MAXIMUM];
static uint32_t agent_count, peer_count;
static struct peer *dirty[MAXIMUM];
static int dirty_count;

static void note(struct peer *peer) {
    if (peer->dirty) return;
    peer->dirty = 1;
    dirty[dirty_count++] = peer;
}

/// A message to an agent: the caller's number, then the body.
static void forward(struct peer *caller, uint32_t agent, const unsigned char *body, size_t count) {
    struct peer *target = agent_count ? agents[agent % agent_count] : NULL;
    if (!target) return;
    unsigned char header[10];
    buffer_append(&target->out, header, floor_header(header, count + 4));
    buffer_append(&target->out, &caller->number, 4);
    buffer_append(&target->out, body, count);
    note(target);
}

static void answer(const unsigned char *payload, size_t count) {
    uint32_t number;
    if (count < 4) return;
    memcpy(&number, payload, 4);
    if (number >= peer_count) return;
    struct peer *caller = peers[number];
    char head[128];
    int size = snprintf(
        head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n", count - 4);
    buffer_append(&caller->out, head, (size_t)size);
    buffer_append(&caller->out, payload + 4, count - 4);
    note(caller);
}

/// One HTTP request from the front of the buffer; 0 when it is not complete.
static size_t request(struct peer *peer, unsigned char *bytes, size_t count) {
    unsigned char *end = memmem(bytes, count, "\r\n\r\n", 4);
    if (!end) return 0;
    size_t head = (size_t)(end + 4 - bytes);
    if (memcmp(bytes, "GET", 3) == 0) {
        char text[256];
        size_t size = floor_upgrade_answer((char *)bytes, head, text, sizeof text);
        buffer_append(&peer->out, text, size);
        note(peer);
        peer->is_agent = 1;
        agents[agent_count++] = peer;
        return head;
    }
    unsigned char *field = memmem(bytes, head, "Content-Length: ", 16);
    size_t body = field ? strtoul((char *)field + 16, NULL, 10) : 0;
    if (count < head + body) return 0;
    forward(peer, (uint32_t)strtoul((char *)bytes + 6, NULL, 10), bytes + head, body);
    return head + body;
}

static void take(struct peer *peer) {
    for (;;) {
        unsigned char *place = buffer_room(&peer->in, 65536);
        ssize_t count = recv(peer->fd, place, 65536, 0);
        if (count <= 0) return;
        peer->in.count += (size_t)count;
        size_t done = 0, size;
        for (;;) {
            unsigned char *payload;
            size_t length;
            if (peer->is_agent) {
                size = floor_frame(peer->in.bytes + done, peer->in.count - done, &payload, &length);
                if (size) answer(payload, length);
            } else {
                size = request(peer, peer->in.bytes + done, peer->in.count - done);
            }
            if (!size) break;
            done += size;
        }
        buffer_drop(&peer->in, done);
        if (count < 65536) return;
    }
}

void cm_floor_relay(int listener) {
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[512];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(epoll, events, 512, -1);
        for (int index = 0; index < count; index++) {
            struct peer *peer = events[index].data.ptr;
            if (peer) {
                if (events[index].events & EPOLLOUT && peer->out.count) note(peer);
                if (events[index].events & EPOLLIN) take(peer);
                continue;
            }
            int fd;
            while (peer_count < MAXIMUM && (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
                int on = 1;
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                struct peer *fresh = calloc(1, sizeof *fresh);
                if (!fresh) abort();
                fresh->fd = fd;
                fresh->number = peer_count;
                peers[peer_count++] = fresh;
                event = (struct epoll_event){.events = EPOLLIN | EPOLLOUT | (uint32_t)EPOLLET, .data.ptr = fresh};
                epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
            }
        }
        for (int index = 0; index < dirty_count; index++) {
            dirty[index]->dirty = 0;
            floor_flush(dirty[index]->fd, &dirty[index]->out);
        }
        dirty_count = 0;
    }
}
