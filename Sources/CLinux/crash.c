#define _GNU_SOURCE
#include "clinux_crash.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

_Thread_local uint64_t cm_crash_current __attribute__((tls_model("initial-exec")));

struct image {
    uint64_t start, end, word;
    char name[CM_CRASH_NAME_BYTES];
};

// Written under `adding`, read by the handler up to `image_count`, which grows after the entry is whole.
static struct image images[CM_CRASH_MAXIMUM_IMAGES];
static atomic_uint image_count;
static atomic_flag adding = ATOMIC_FLAG_INIT;

static const int watched[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
static int directory_fd = -1;
static char file_name[32];
/// The thread that writes the record; the first one wins.
static atomic_int writer;

int cm_crash_add_image(uint64_t start, uint64_t end, uint64_t word, const char *name) {
    while (atomic_flag_test_and_set_explicit(&adding, memory_order_acquire)) {}
    unsigned count = atomic_load_explicit(&image_count, memory_order_relaxed);
    int status = -1;
    if (count < CM_CRASH_MAXIMUM_IMAGES) {
        struct image *image = &images[count];
        image->start = start;
        image->end = end;
        image->word = word;
        strncpy(image->name, name, sizeof image->name - 1);
        atomic_store_explicit(&image_count, count + 1, memory_order_release);
        status = 0;
    }
    atomic_flag_clear_explicit(&adding, memory_order_release);
    return status;
}

static uint64_t program_counter(const ucontext_t *context) {
#if defined(__x86_64__)
    return (uint64_t)context->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
    return context->uc_mcontext.pc;
#else
#error "no program counter for this machine"
#endif
}

/// memcpy without a call: the handler must not enter a library whose state is unknown.
static void copy(char *to, const char *from, size_t count) {
    for (size_t i = 0; i < count; i++) to[i] = from[i];
}

static void write_record(int signal, const siginfo_t *info, const ucontext_t *context, int thread) {
    struct cm_crash_record record = {
        .magic = {'C', 'M', 'C', 'R', 'A', 'S', 'H', '1'},
        .end = {'C', 'M', 'C', 'R', 'E', 'N', 'D', '1'},
        .size = sizeof record,
        .signal = signal,
        .code = info->si_code,
        .process = getpid(),
        .thread = thread,
        .fault_address = info->si_code > 0 ? (uint64_t)(uintptr_t)info->si_addr : 0,
        .program_counter = program_counter(context),
        .current = cm_crash_current,
    };
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) == 0) record.unix_seconds = (uint64_t)now.tv_sec;
    prctl(PR_GET_NAME, record.thread_name, 0, 0, 0);

    unsigned count = atomic_load_explicit(&image_count, memory_order_acquire);
    for (unsigned i = 0; i < count; i++) {
        const struct image *image = &images[i];
        if (!record.image_found && record.program_counter >= image->start && record.program_counter < image->end) {
            record.image_found = 1;
            record.image_offset = record.program_counter - image->start;
            copy(record.image_name, image->name, sizeof image->name);
        }
        if (record.current != 0 && record.current_name[0] == 0 && image->word == record.current)
            copy(record.current_name, image->name, sizeof image->name);
    }

    int fd = openat(directory_fd, file_name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return;
    size_t done = 0;
    while (done < sizeof record) {
        ssize_t wrote = write(fd, (const char *)&record + done, sizeof record - done);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote <= 0) break;
        done += (size_t)wrote;
    }
    // No fsync: the process dies, not the machine; the page cache keeps it, and the handler stays short.
    close(fd);
}

static void handle(int signal, siginfo_t *info, void *context) {
    int thread = (int)syscall(SYS_gettid);
    int nobody = 0;
    if (atomic_compare_exchange_strong(&writer, &nobody, thread)) {
        write_record(signal, info, context, thread);
    } else if (nobody != thread) {
        // Another thread is at it and ends the process in a moment. Bounded, in case it hangs.
        struct timespec second = {1, 0};
        nanosleep(&second, NULL);
    }
    // As it would have ended without us: core dump and exit status are the signal's own. It is not blocked (SA_NODEFER).
    struct sigaction normal = {.sa_handler = SIG_DFL};
    sigaction(signal, &normal, NULL);
    syscall(SYS_tgkill, getpid(), thread, signal);
}

int cm_crash_install(const char *directory) {
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return -errno;
    char digits[16];
    int count = 0;
    for (int pid = getpid(); pid > 0; pid /= 10) digits[count++] = (char)('0' + pid % 10);
    strcpy(file_name, "crash-");
    size_t length = strlen(file_name);
    while (count > 0) file_name[length++] = digits[--count];
    file_name[length] = 0;
    directory_fd = fd;

    struct sigaction action = {.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    action.sa_sigaction = handle;
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof watched / sizeof watched[0]; i++) {
        if (sigaction(watched[i], &action, NULL) != 0) return -errno;
    }
    return 0;
}

// Room for the kernel's frame with every vector register (up to 12 KiB) and for ours; pages cost only what is touched.
#define OWN_STACK_BYTES (64 << 10)
static _Thread_local void *own_stack;

int cm_crash_use_own_stack(void) {
    if (own_stack) return 0;
    void *memory = mmap(NULL, OWN_STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return -errno;
    stack_t stack = {.ss_sp = memory, .ss_size = OWN_STACK_BYTES};
    if (sigaltstack(&stack, NULL) != 0) {
        int status = -errno;
        munmap(memory, OWN_STACK_BYTES);
        return status;
    }
    own_stack = memory;
    return 0;
}

void cm_crash_release_own_stack(void) {
    if (!own_stack) return;
    stack_t none = {.ss_flags = SS_DISABLE};
    sigaltstack(&none, NULL);
    munmap(own_stack, OWN_STACK_BYTES);
    own_stack = NULL;
}
