#define _GNU_SOURCE
#include "floor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "cfloor.h"

unsigned char *buffer_room(struct buffer *buffer, size_t extra) {
    if (buffer->count + extra > buffer->capacity) {
        size_t capacity = buffer->capacity ? buffer->capacity : 4096;
        while (capacity < buffer->count + extra) capacity *= 2;
        unsigned char *grown = realloc(buffer->bytes, capacity);
        if (!grown) abort();
        buffer->bytes = grown;
        buffer->capacity = capacity;
    }
    return buffer->bytes + buffer->count;
}

void buffer_append(struct buffer *buffer, const void *bytes, size_t count) {
    memcpy(buffer_room(buffer, count), bytes, count);
    buffer->count += count;
}

void buffer_drop(struct buffer *buffer, size_t count) {
    buffer->count -= count;
    if (buffer->count) memmove(buffer->bytes, buffer->bytes + count, buffer->count);
}

static struct sockaddr_in loopback(uint16_t port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

int cm_floor_listen(uint16_t *port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in address = loopback(*port);
    socklen_t length = sizeof address;
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 4096) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) < 0) {
        int number = errno;
        close(fd);
        return -number;
    }
    *port = ntohs(address.sin_port);
    return fd;
}

int floor_connect(uint16_t port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    struct sockaddr_in address = loopback(port);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        close(fd);
        return -1;
    }
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

int floor_accept(int listener) {
    struct pollfd ready = {.fd = listener, .events = POLLIN};
    poll(&ready, 1, -1);
    return accept4(listener, NULL, NULL, SOCK_CLOEXEC);
}

void floor_nonblocking(int fd) { fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); }

uint64_t floor_now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

int floor_flush(int fd, struct buffer *buffer) {
    size_t sent = 0;
    while (sent < buffer->count) {
        ssize_t count = send(fd, buffer->bytes + sent, buffer->count - sent, MSG_NOSIGNAL);
        if (count < 0) {
            if (errno == EINTR) continue;
            if (errno != EAGAIN) return -1;
            break;
        }
        sent += (size_t)count;
    }
    buffer_drop(buffer, sent);
    return 0;
}

const char floor_upgrade_request[] =
    "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

size_t floor_upgrade_answer(const char *request, size_t count, char *answer, size_t capacity) {
    static const char name[] = "Sec-WebSocket-Key: ";
    const char *key = memmem(request, count, name, sizeof name - 1);
    if (!key) return 0;
    key += sizeof name - 1;
    char joined[64];
    if ((size_t)(request + count - key) < 24) return 0;
    memcpy(joined, key, 24);
    memcpy(joined + 24, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 36);
    unsigned char digest[20], text[32];
    SHA1((unsigned char *)joined, 60, digest);
    EVP_EncodeBlock(text, digest, 20);
    return (size_t)snprintf(
        answer, capacity,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: %s\r\n\r\n", text);
}

size_t floor_frame(unsigned char *bytes, size_t count, unsigned char **payload, size_t *length) {
    if (count < 2) return 0;
    size_t size = bytes[1] & 0x7F, header = 2;
    if (size == 126) {
        if (count < 4) return 0;
        size = (size_t)bytes[2] << 8 | bytes[3];
        header = 4;
    } else if (size == 127) {
        if (count < 10) return 0;
        size = 0;
        for (int index = 2; index < 10; index++) size = size << 8 | bytes[index];
        header = 10;
    }
    int masked = bytes[1] & 0x80;
    if (masked) header += 4;
    if (count < header + size) return 0;
    *payload = bytes + header;
    *length = size;
    if (masked) {
        uint32_t key;
        memcpy(&key, bytes + header - 4, 4);
        uint64_t wide = (uint64_t)key << 32 | key, word;
        size_t index = 0;
        for (; index + 8 <= size; index += 8) {
            memcpy(&word, *payload + index, 8);
            word ^= wide;
            memcpy(*payload + index, &word, 8);
        }
        for (; index < size; index++) (*payload)[index] ^= (unsigned char)(key >> 8 * (index & 3));
    }
    return header + size;
}

size_t floor_header(unsigned char *bytes, size_t payload) {
    bytes[0] = 0x82;
    if (payload < 126) {
        bytes[1] = (unsigned char)payload;
        return 2;
    }
    if (payload <= 0xFFFF) {
        bytes[1] = 126;
        bytes[2] = (unsigned char)(payload >> 8);
        bytes[3] = (unsigned char)payload;
        return 4;
    }
    bytes[1] = 127;
    for (int index = 0; index < 8; index++) bytes[2 + index] = (unsigned char)((uint64_t)payload >> (56 - 8 * index));
    return 10;
}
