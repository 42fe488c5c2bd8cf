// The floor of a terminal: one program on a PTY, one connection, one epoll thread, bytes as they are.
#define _GNU_SOURCE
#include "cfloor.h"
#include "floor.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

struct flow {
    char bytes[65536];
    size_t start, end;
    int from, to, done;
};

/// Moves what can be moved. 0, or -1 at the end of either side.
static int move(struct flow *flow) {
    for (;;) {
        if (flow->start == flow->end) {
            flow->start = flow->end = 0;
            ssize_t count = read(flow->from, flow->bytes, sizeof flow->bytes);
            if (count < 0) return errno == EAGAIN ? 0 : -1;
            if (count == 0) return -1;
            flow->end = (size_t)count;
        }
        ssize_t count = write(flow->to, flow->bytes + flow->start, flow->end - flow->start);
        if (count < 0) return errno == EAGAIN ? 0 : -1;
        flow->start += (size_t)count;
    }
}

void cm_floor_terminal(int listener) {
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        int peer = floor_accept(listener);
        if (peer < 0) continue;
        floor_nonblocking(peer);
        int one = 1;
        setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        int master;
        pid_t child = forkpty(&master, NULL, NULL, NULL);
        if (child == 0) {
            execlp("sh", "sh", (char *)NULL);
            _exit(127);
        }
        if (child < 0) abort();
        fcntl(master, F_SETFL, O_NONBLOCK);
        int epoll = epoll_create1(EPOLL_CLOEXEC);
        struct epoll_event event = {EPOLLIN | EPOLLOUT | EPOLLET, {.fd = peer}};
        epoll_ctl(epoll, EPOLL_CTL_ADD, peer, &event);
        event.data.fd = master;
        epoll_ctl(epoll, EPOLL_CTL_ADD, master, &event);
        static struct flow up, down;
        up = (struct flow){.from = peer, .to = master};
        down = (struct flow){.from = master, .to = peer};
        while (move(&up) == 0 && move(&down) == 0) {
            if (epoll_wait(epoll, &event, 1, -1) < 0 && errno != EINTR) break;
        }
        close(epoll);
        close(peer);
        close(master);
        kill(-child, SIGKILL);
        kill(child, SIGKILL);
    }
}
