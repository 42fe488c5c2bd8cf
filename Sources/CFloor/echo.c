// The floor of the WebSocket echo: one epoll thread, one receive buffer, one gathered answer per read.
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cfloor.h"
#include "floor.h"

struct echo {
    int fd, open;
    /// What has arrived of an unfinished frame, and what could not be sent.
    struct buffer in, out;
};

enum { RECEIVE = 512 << 10 };
static unsigned char receive_buffer[RECEIVE + 65536];
static unsigned char send_buffer[RECEIVE + 65536];

static void end(struct echo *connection) {
    close(connection->fd);
    free(connection->in.bytes);
    free(connection->out.bytes);
    free(connection);
}

/// 0 when the connection has ended.
static int take(struct echo *connection) {
    for (;;) {
        size_t kept = connection->in.count;
        if (kept > 65536) return 0;
        if (kept) memcpy(receive_buffer, connection->in.bytes, kept);
        ssize_t count = recv(connection->fd, receive_buffer + kept, RECEIVE, 0);
        if (count < 0) return errno == EAGAIN;
        if (count == 0) return 0;
        connection->in.count = 0;
        size_t have = kept + (size_t)count, done = 0, ready = 0;
        if (!connection->open) {
            unsigned char *end_of_head = memmem(receive_buffer, have, "\r\n\r\n", 4);
            if (end_of_head) {
                char answer[256];
                size_t size = floor_upgrade_answer((char *)receive_buffer, have, answer, sizeof answer);
                buffer_append(&connection->out, answer, size);
                connection->open = 1;
                done = (size_t)(end_of_head + 4 - receive_buffer);
            }
        }
        unsigned char *payload;
        size_t length, size;
        while (connection->open && (size = floor_frame(receive_buffer + done, have - done, &payload, &length))) {
            ready += floor_header(send_buffer + ready, length);
            memcpy(send_buffer + ready, payload, length);
            ready += length;
            done += size;
        }
        if (done < have) buffer_append(&connection->in, receive_buffer + done, have - done);
        if (ready && !connection->out.count) {
            ssize_t sent = send(connection->fd, send_buffer, ready, MSG_NOSIGNAL);
            if (sent < 0 && errno != EAGAIN) return 0;
            if (sent < 0) sent = 0;
            if ((size_t)sent < ready) buffer_append(&connection->out, send_buffer + sent, ready - (size_t)sent);
        } else {
            buffer_append(&connection->out, send_buffer, ready);
            if (floor_flush(connection->fd, &connection->out) < 0) return 0;
        }
        if (count < RECEIVE) return 1;
    }
}

void cm_floor_echo(int listener) {
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[512];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(epoll, events, 512, -1);
        for (int index = 0; index < count; index++) {
            struct echo *connection = events[index].data.ptr;
            if (!connection) {
                int fd;
                while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
                    int on = 1;
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                    struct echo *fresh = calloc(1, sizeof *fresh);
                    if (!fresh) abort();
                    fresh->fd = fd;
                    event = (struct epoll_event){
                        .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | (uint32_t)EPOLLET, .data.ptr = fresh};
                    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
                }
                continue;
            }
            int alive = 1;
            if (events[index].events & EPOLLOUT && connection->out.count)
                alive = floor_flush(connection->fd, &connection->out) == 0;
            if (alive && events[index].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) alive = take(connection);
            if (!alive) end(connection);
        }
    }
}
