/* libssh2 as the system has it; nothing of ours. */
#include <libssh2.h>
