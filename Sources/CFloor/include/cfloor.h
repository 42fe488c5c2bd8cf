// The C floors of cm-bench: the least work that any server could do for the same traffic.
#ifndef CM_CFLOOR_H
#define CM_CFLOOR_H
#endif
