// What Swift cannot call on Linux by itself. One header per topic; each function says why it exists.
#ifndef CM_CLINUX_H
#define CM_CLINUX_H

#include "clinux_crash.h"
#include "clinux_epoll.h"
#include "clinux_errors.h"
#include "clinux_files.h"
#include "clinux_memory.h"
#include "clinux_plugin.h"
#include "clinux_pty.h"
#include "clinux_spawn.h"
#include "clinux_socket.h"
#include "clinux_thread.h"

#endif
