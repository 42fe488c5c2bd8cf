#define _GNU_SOURCE
#include "clinux_pty.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif

int cm_pty_resize(int master, uint16_t rows, uint16_t columns) {
    struct winsize size = {.ws_row = rows, .ws_col = columns};
    return ioctl(master, TIOCSWINSZ, &size) < 0 ? -errno : 0;
}

int cm_pty_open(int *master, int *terminal, uint16_t rows, uint16_t columns) {
    int m = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (m < 0) return -errno;
    int t = -1;
    if (grantpt(m) < 0 || unlockpt(m) < 0 || (t = ioctl(m, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC)) < 0) {
        int error = errno;
        close(m);
        return -error;
    }
    int status = cm_pty_resize(m, rows, columns);
    if (status < 0) {
        close(m);
        close(t);
        return status;
    }
    *master = m;
    *terminal = t;
    return 0;
}

int cm_pty_foreground(int master) {
    int group = 0;
    return ioctl(master, TIOCGPGRP, &group) < 0 ? -errno : group;
}
