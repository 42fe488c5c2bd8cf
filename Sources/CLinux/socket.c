#define _GNU_SOURCE
#include "clinux_socket.h"

#include <errno.h>

int cm_accept_peer(int listener, struct sockaddr_storage *address) {
    socklen_t length = sizeof *address;
    int fd = accept4(listener, (struct sockaddr *)address, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    return fd < 0 ? -errno : fd;
}
