// The load: one epoll thread that keeps a number of messages in flight on each connection and checks what comes back.
#define _GNU_SOURCE
#include <errno.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cfloor.h"
#include "floor.h"

enum role { ECHO, AGENT, CALLER };

struct load {
    int fd;
    enum role role;
    SSL *ssl;
    struct buffer in, out;
    uint64_t asked;
    unsigned number;
};

static ssize_t get(struct load *load, void *bytes, size_t count) {
    if (!load->ssl) return recv(load->fd, bytes, count, 0);
    int got = SSL_read(load->ssl, bytes, (int)count);
    if (got > 0) return got;
    int error = SSL_get_error(load->ssl, got);
    errno = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? EAGAIN : ECONNRESET;
    return error == SSL_ERROR_ZERO_RETURN ? 0 : -1;
}

static int flush(struct load *load) {
    if (!load->ssl) return floor_flush(load->fd, &load->out);
    while (load->out.count) {
        int sent = SSL_write(load->ssl, load->out.bytes, (int)load->out.count);
        if (sent <= 0) return SSL_get_error(load->ssl, sent) == SSL_ERROR_WANT_WRITE ? 0 : -1;
        buffer_drop(&load->out, (size_t)sent);
    }
    return 0;
}

/// Connects and upgrades, with blocking calls.
static int begin(struct load *load, uint16_t port, SSL_CTX *tls) {
    load->fd = floor_connect(port);
    if (load->fd < 0) return -1;
    if (tls) {
        load->ssl = SSL_new(tls);
        SSL_set_fd(load->ssl, load->fd);
        if (SSL_connect(load->ssl) != 1) return -1;
    }
    if (load->role != CALLER) {
        buffer_append(&load->out, floor_upgrade_request, strlen(floor_upgrade_request));
        if (flush(load) < 0) return -1;
        char answer[1024];
        size_t have = 0;
        while (have < sizeof answer - 1) {
            ssize_t count = get(load, answer + have, 1);
            if (count <= 0) return -1;
            have += (size_t)count;
            if (have >= 4 && memcmp(answer + have - 4, "\r\n\r\n", 4) == 0) break;
        }
        if (memcmp(answer, "HTTP/1.1 101", 12) != 0) return -1;
    }
    floor_nonblocking(load->fd);
    return 0;
}

struct run {
    struct load *loads;
    int count, epoll;
    unsigned char frame[140];
    size_t frame_size, echo_size, payload;
    uint64_t done;
    /// Round trip times of callers, in a ring.
    uint32_t *times;
    size_t time_count, time_capacity;
    char body[64];
};

static void ask(struct run *run, struct load *caller, int agents) {
    char head[160];
    unsigned agent = caller->number++ % (unsigned)agents;
    int size = snprintf(
        head, sizeof head,
        "POST /%u HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
        agent, strlen(run->body), run->body);
    buffer_append(&caller->out, head, (size_t)size);
    caller->asked = floor_now();
}

static unsigned char receive_buffer[256 << 10];

/// -1: wrong bytes or the end.
static int take(struct run *run, struct load *load, int agents) {
    for (;;) {
        ssize_t count = get(load, receive_buffer, sizeof receive_buffer);
        if (count < 0) return errno == EAGAIN ? flush(load) : -1;
        if (count == 0) return -1;
        buffer_append(&load->in, receive_buffer, (size_t)count);
        size_t done = 0;
        if (load->role == ECHO) {
            while (load->in.count - done >= run->echo_size) {
                unsigned char *frame = load->in.bytes + done;
                if (frame[0] != 0x82 || frame[1] != run->payload) return -1;
                for (size_t index = 0; index < run->payload; index++)
                    if (frame[2 + index] != (unsigned char)('a' + index % 26)) return -1;
                done += run->echo_size;
                run->done++;
                buffer_append(&load->out, run->frame, run->frame_size);
            }
        } else if (load->role == AGENT) {
            unsigned char *payload;
            size_t length, size;
            while ((size = floor_frame(load->in.bytes + done, load->in.count - done, &payload, &length))) {
                // Masked with the key 0: the floor still unmasks it.
                unsigned char header[14];
                size_t count = floor_header(header, length);
                header[1] |= 0x80;
                memset(header + count, 0, 4);
                buffer_append(&load->out, header, count + 4);
                buffer_append(&load->out, payload, length);
                done += size;
            }
        } else {
            unsigned char *end = memmem(load->in.bytes, load->in.count, "\r\n\r\n", 4);
            size_t body = strlen(run->body);
            if (end && load->in.count >= (size_t)(end + 4 - load->in.bytes) + body) {
                if (memcmp(load->in.bytes, "HTTP/1.1 200", 12) != 0 || memcmp(end + 4, run->body, body) != 0) return -1;
                done = (size_t)(end + 4 - load->in.bytes) + body;
                run->done++;
                if (run->times) run->times[run->time_count++ % run->time_capacity] = (uint32_t)(floor_now() - load->asked);
                ask(run, load, agents);
            }
        }
        buffer_drop(&load->in, done);
        if (load->ssl ? !SSL_pending(load->ssl) : (size_t)count < sizeof receive_buffer) return flush(load);
    }
}

static int compare(const void *left, const void *right) {
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return a < b ? -1 : a > b;
}

static int turn(struct run *run, int agents, uint64_t until) {
    struct epoll_event events[512];
    while (floor_now() < until) {
        int count = epoll_wait(run->epoll, events, 512, 100);
        for (int index = 0; index < count; index++) {
            struct load *load = events[index].data.ptr;
            if (events[index].events & EPOLLOUT && load->out.count && flush(load) < 0) return -1;
            if (events[index].events & ~(uint32_t)EPOLLOUT && take(run, load, agents) < 0) return -1;
        }
    }
    return 0;
}

static int measure(struct run *run, int agents, uint64_t milliseconds, struct cm_load_result *result) {
    run->epoll = epoll_create1(EPOLL_CLOEXEC);
    for (int index = 0; index < run->count; index++) {
        struct epoll_event event = {
            .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | (uint32_t)EPOLLET, .data.ptr = &run->loads[index]};
        epoll_ctl(run->epoll, EPOLL_CTL_ADD, run->loads[index].fd, &event);
        if (flush(&run->loads[index]) < 0) return -1;
    }
    run->done = 0;
    run->time_count = 0;
    uint64_t start = floor_now();
    int status = turn(run, agents, start + milliseconds * 1000000u);
    result->count = run->done;
    result->nanoseconds = floor_now() - start;
    result->p50 = result->p99 = 0;
    size_t times = run->time_count < run->time_capacity ? run->time_count : run->time_capacity;
    if (times) {
        qsort(run->times, times, sizeof *run->times, compare);
        result->p50 = run->times[times / 2];
        result->p99 = run->times[times - 1 - times / 100];
    }
    return status;
}

static void end(struct run *run) {
    for (int index = 0; index < run->count; index++) {
        struct load *load = &run->loads[index];
        if (load->ssl) SSL_free(load->ssl);
        if (load->fd > 0) close(load->fd);
        free(load->in.bytes);
        free(load->out.bytes);
    }
    close(run->epoll);
    free(run->loads);
    free(run->times);
}

int cm_load_echo(
    uint16_t port, int tls, int connections, int depth, int payload, uint64_t milliseconds,
    struct cm_load_result *result) {
    SSL_CTX *context = tls ? SSL_CTX_new(TLS_client_method()) : NULL;
    if (context) SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    struct run run = {.count = connections, .payload = (size_t)payload, .echo_size = (size_t)payload + 2};
    run.loads = calloc((size_t)connections, sizeof *run.loads);
    if (!run.loads) abort();
    static const unsigned char mask[4] = {0x12, 0x34, 0x56, 0x78};
    run.frame[0] = 0x82;
    run.frame[1] = (unsigned char)(0x80 | payload);
    memcpy(run.frame + 2, mask, 4);
    for (int index = 0; index < payload; index++)
        run.frame[6 + index] = (unsigned char)('a' + index % 26) ^ mask[index & 3];
    run.frame_size = (size_t)payload + 6;
    int status = 0;
    for (int index = 0; index < connections && status == 0; index++) {
        status = begin(&run.loads[index], port, context);
        for (int message = 0; message < depth; message++)
            buffer_append(&run.loads[index].out, run.frame, run.frame_size);
    }
    if (status == 0) status = measure(&run, 1, milliseconds, result);
    end(&run);
    SSL_CTX_free(context);
    return status;
}

int cm_load_relay(uint16_t port, int agents, int callers, uint64_t milliseconds, struct cm_load_result *result) {
    struct run run = {.count = agents + callers, .time_capacity = 1 << 20, .body = "{\"argv\":[\"true\"],\"wait_s\":10}"};
    run.loads = calloc((size_t)run.count, sizeof *run.loads);
    run.times = calloc(run.time_capacity, sizeof *run.times);
    if (!run.loads || !run.times) abort();
    int status = 0;
    for (int index = 0; index < run.count && status == 0; index++) {
        run.loads[index].role = index < agents ? AGENT : CALLER;
        run.loads[index].number = (unsigned)index;
        status = begin(&run.loads[index], port, NULL);
        if (index >= agents) ask(&run, &run.loads[index], agents);
    }
    if (status == 0) status = measure(&run, agents, milliseconds, result);
    end(&run);
    return status;
}
