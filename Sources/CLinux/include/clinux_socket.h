// accept4: glibc declares it only under _GNU_SOURCE, which Swift's Glibc module is built without.
#ifndef CM_CLINUX_SOCKET_H
#define CM_CLINUX_SOCKET_H

#include <sys/socket.h>

/// Takes one waiting connection, non-blocking and close-on-exec. The descriptor, or -errno.
int cm_accept_peer(int listener, struct sockaddr_storage *address);

#endif
