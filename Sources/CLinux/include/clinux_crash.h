// Crash records. Swift cannot run in a signal handler (locks, allocation, reference counts), so what must be known of a
// fault is written here, with nothing but async-signal-safe calls (signal-safety(7)), into a file that was named before.
#ifndef CM_CLINUX_CRASH_H
#define CM_CLINUX_CRASH_H

#include <stddef.h>
#include <stdint.h>

#define CM_CRASH_NAME_BYTES 64
#define CM_CRASH_MAXIMUM_IMAGES 8192

/// What the file holds: this and nothing else. Numbers in the machine's own order; the reader runs on the same machine.
struct cm_crash_record {
    char magic[8];                          // "CMCRASH1"
    uint32_t size;                          // of this structure
    int32_t signal;
    int32_t code;                           // si_code: who sent it, or what kind of fault
    int32_t process;
    int32_t thread;
    uint32_t image_found;                   // 1: the program counter lies in a registered image
    uint64_t unix_seconds;
    uint64_t fault_address;                 // si_addr; 0 for signals that were sent
    uint64_t program_counter;
    uint64_t image_offset;                  // program counter minus the image's start
    uint64_t current;                       // the thread's word, see below
    char thread_name[16];
    char image_name[CM_CRASH_NAME_BYTES];   // of the image in which the program counter lies
    char current_name[CM_CRASH_NAME_BYTES]; // of the first image that was registered with the thread's word
    char end[8];                            // "CMCREND1": a record without it was cut
};

/// The word that says for whom the calling thread works now; 0: for the core. Whoever calls into foreign code sets it
/// before and puts the former value back after: two moves, no call. Initial-exec: a handler may read it.
extern _Thread_local uint64_t cm_crash_current __attribute__((tls_model("initial-exec")));

static inline uint64_t cm_crash_enter(uint64_t word) {
    uint64_t former = cm_crash_current;
    cm_crash_current = word;
    return former;
}
static inline void cm_crash_leave(uint64_t former) { cm_crash_current = former; }

/// Says that code at `start` up to `end` belongs to `name`, for which threads carry `word`. Images are never unmapped, so
/// there is no way back. From any thread. 0, or -1 when the table is full.
int cm_crash_add_image(uint64_t start, uint64_t end, uint64_t word, const char *_Nonnull name);

/// From now on SIGSEGV, SIGBUS, SIGILL, SIGFPE and SIGABRT write `directory`/crash-PID and then end the process as they
/// would have without. Call it once; `directory` must exist. 0 or -errno.
int cm_crash_install(const char *_Nonnull directory);

/// Gives the calling thread a stack for the handler, so that an overflow of its own stack is recorded, too. Without it
/// the handler runs on the thread's stack. 0 or -errno.
int cm_crash_use_own_stack(void);
/// Before a thread ends that called `cm_crash_use_own_stack`.
void cm_crash_release_own_stack(void);

#endif
