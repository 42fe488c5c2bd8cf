// Pseudo terminals: posix_openpt and TIOCGPTPEER are not in Swift's Glibc module, and ioctl is variadic.
#ifndef CM_CLINUX_PTY_H
#define CM_CLINUX_PTY_H

#include <stdint.h>

/// Both ends, close-on-exec; the terminal end is opened through the master, so no name is looked up in /dev/pts (which
/// may be another mount). 0 or -errno.
int cm_pty_open(int *_Nonnull master, int *_Nonnull terminal, uint16_t rows, uint16_t columns);
int cm_pty_resize(int master, uint16_t rows, uint16_t columns);
/// The process group in the foreground, or -errno.
int cm_pty_foreground(int master);

#endif
