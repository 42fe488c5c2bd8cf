// The callers of a core: keep-alive HTTP connections that post one command each and wait for its result.
#define _GNU_SOURCE
#include <errno.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "cfloor.h"
#include "floor.h"

struct caller {
    int fd, is_busy;
    SSL *ssl;
    struct buffer in, out;
    /// When the request should have gone out, which is also when the clock of its latency begins.
    uint64_t intended;
};

struct calls {
    const struct cm_command_load *load;
    struct caller *callers;
    /// Callers without a request, as a stack.
    int *idle, idle_count, epoll;
    uint64_t issued, answered;
    uint32_t *times;
    size_t time_count, time_capacity;
};

static ssize_t get(struct caller *caller, void *bytes, size_t count) {
    if (!caller->ssl) return recv(caller->fd, bytes, count, 0);
    int got = SSL_read(caller->ssl, bytes, (int)count);
    if (got > 0) return got;
    int error = SSL_get_error(caller->ssl, got);
    errno = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? EAGAIN : ECONNRESET;
    return error == SSL_ERROR_ZERO_RETURN ? 0 : -1;
}

static int flush(struct caller *caller) {
    if (!caller->ssl) return floor_flush(caller->fd, &caller->out);
    while (caller->out.count) {
        int sent = SSL_write(caller->ssl, caller->out.bytes, (int)caller->out.count);
        if (sent <= 0) return SSL_get_error(caller->ssl, sent) == SSL_ERROR_WANT_WRITE ? 0 : -1;
        buffer_drop(&caller->out, (size_t)sent);
    }
    return 0;
}

static int issue(struct calls *calls, struct caller *caller, uint64_t intended) {
    const struct cm_command_load *load = calls->load;
    char text[1024], body[160];
    const char *client = load->clients[calls->issued++ % (uint64_t)load->client_count];
    int length = snprintf(body, sizeof body, "{\"clients\":[\"%s\"],\"argv\":[\"true\"],\"wait_s\":30}", client);
    int size = snprintf(
        text, sizeof text,
        "POST /api/v1/commands HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nAuthorization: Bearer %s\r\n"
        "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
        load->port, load->token, length, body);
    if (size >= (int)sizeof text) return -1;
    buffer_append(&caller->out, text, (size_t)size);
    caller->intended = intended;
    caller->is_busy = 1;
    return flush(caller);
}

static int has(const unsigned char *bytes, size_t count, const char *text) {
    return memmem(bytes, count, text, strlen(text)) != NULL;
}

static unsigned char receive_buffer[64 << 10];

/// 1 when the caller's answer is complete and right, 0 when more must come, -1 when it is wrong or the connection ended.
static int take(struct calls *calls, struct caller *caller) {
    for (;;) {
        ssize_t count = get(caller, receive_buffer, sizeof receive_buffer);
        if (count < 0) return errno == EAGAIN ? 0 : -1;
        if (count == 0 || !caller->is_busy) return -1;
        buffer_append(&caller->in, receive_buffer, (size_t)count);
        unsigned char *bytes = caller->in.bytes;
        unsigned char *end = memmem(bytes, caller->in.count, "\r\n\r\n", 4);
        if (!end) continue;
        size_t head = (size_t)(end + 4 - bytes);
        unsigned char *field = memmem(bytes, head, "content-length: ", 16);
        if (!field) return -1;
        size_t body = strtoul((char *)field + 16, NULL, 10);
        if (caller->in.count < head + body) continue;
        if (memcmp(bytes, "HTTP/1.1 201", 12) != 0 || !has(bytes + head, body, "\"state\":\"finished\"") ||
            !has(bytes + head, body, "\"succeeded\":1") || caller->in.count != head + body) {
            fprintf(stderr, "wrong answer: %.*s\n", (int)(caller->in.count < 600 ? caller->in.count : 600), (char *)bytes);
            return -1;
        }
        caller->in.count = 0;
        caller->is_busy = 0;
        calls->answered++;
        uint64_t took = floor_now() - caller->intended;
        calls->times[calls->time_count++ % calls->time_capacity] = took > UINT32_MAX ? UINT32_MAX : (uint32_t)took;
        return 1;
    }
}

static int open_caller(struct calls *calls, struct caller *caller, SSL_CTX *tls) {
    caller->fd = floor_connect(calls->load->port);
    if (caller->fd < 0) return -1;
    if (tls) {
        caller->ssl = SSL_new(tls);
        SSL_set_fd(caller->ssl, caller->fd);
        if (SSL_connect(caller->ssl) != 1) return -1;
    }
    floor_nonblocking(caller->fd);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | (uint32_t)EPOLLET, .data.ptr = caller};
    return epoll_ctl(calls->epoll, EPOLL_CTL_ADD, caller->fd, &event);
}

static int compare(const void *left, const void *right) {
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return a < b ? -1 : a > b;
}

/// Until the time is over and the last answer has come. At `rate` 0 each caller asks again at once.
static int run(struct calls *calls, uint64_t start) {
    const struct cm_command_load *load = calls->load;
    uint64_t until = start + load->milliseconds * 1000000u, patience = until + 30000000000u;
    double interval = load->rate > 0 ? 1e9 / load->rate : 0;
    struct epoll_event events[512];
    for (;;) {
        uint64_t now = floor_now(), next = until;
        while (now < until && calls->idle_count) {
            uint64_t intended = interval > 0 ? start + (uint64_t)(interval * (double)calls->issued) : now;
            if (intended > now) {
                next = intended < until ? intended : until;
                break;
            }
            if (issue(calls, &calls->callers[calls->idle[--calls->idle_count]], intended) < 0) return -1;
        }
        if (now >= until && calls->idle_count == load->callers) return 0;
        if (now > patience) return -1;
        uint64_t wait = now >= until ? 100000000u : calls->idle_count ? next - now : 100000000u;
        struct timespec time = {.tv_sec = (time_t)(wait / 1000000000u), .tv_nsec = (long)(wait % 1000000000u)};
        int count = epoll_pwait2(calls->epoll, events, 512, &time, NULL);
        for (int index = 0; index < count; index++) {
            struct caller *caller = events[index].data.ptr;
            if (events[index].events & EPOLLOUT && caller->out.count && flush(caller) < 0) return -1;
            if (!(events[index].events & ~(uint32_t)EPOLLOUT)) continue;
            int status = take(calls, caller);
            if (status < 0) return -1;
            if (status) calls->idle[calls->idle_count++] = (int)(caller - calls->callers);
        }
    }
}

int cm_load_commands(const struct cm_command_load *load, struct cm_load_result *result) {
    SSL_CTX *context = load->tls ? SSL_CTX_new(TLS_client_method()) : NULL;
    if (context) SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    struct calls calls = {.load = load, .time_capacity = 1 << 21, .epoll = epoll_create1(EPOLL_CLOEXEC)};
    calls.callers = calloc((size_t)load->callers, sizeof *calls.callers);
    calls.idle = calloc((size_t)load->callers, sizeof *calls.idle);
    calls.times = malloc(calls.time_capacity * sizeof *calls.times);
    if (!calls.callers || !calls.idle || !calls.times) abort();
    int status = 0;
    for (int index = 0; index < load->callers && status == 0; index++) {
        status = open_caller(&calls, &calls.callers[index], context);
        calls.idle[calls.idle_count++] = index;
    }
    uint64_t start = floor_now();
    if (status == 0) status = run(&calls, start);
    *result = (struct cm_load_result){.count = calls.answered, .nanoseconds = floor_now() - start};
    size_t times = calls.time_count < calls.time_capacity ? calls.time_count : calls.time_capacity;
    if (times) {
        qsort(calls.times, times, sizeof *calls.times, compare);
        result->p50 = calls.times[times / 2];
        result->p99 = calls.times[times - 1 - times / 100];
    }
    for (int index = 0; index < load->callers; index++) {
        struct caller *caller = &calls.callers[index];
        if (caller->ssl) SSL_free(caller->ssl);
        if (caller->fd > 0) close(caller->fd);
        free(caller->in.bytes);
        free(caller->out.bytes);
    }
    close(calls.epoll);
    free(calls.callers);
    free(calls.idle);
    free(calls.times);
    SSL_CTX_free(context);
    return status;
}
