#define _GNU_SOURCE
#include "clinux_plugin.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <unistd.h>

int cm_sealable_file(const char *name) {
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    return fd < 0 ? -errno : fd;
}

int cm_seal_file(int fd) {
    return fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0 ? -errno : 0;
}

void *cm_library_open(const char *path) { return dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE); }

int cm_library_is_loaded(const char *name) {
    // RTLD_NOLOAD raises the count of an object that is there; nothing here is ever unloaded, so the count means nothing.
    return dlopen(name, RTLD_LAZY | RTLD_LOCAL | RTLD_NOLOAD) != NULL;
}

const char *cm_library_error(void) {
    const char *text = dlerror();
    return text ? text : "unknown error of the loader";
}

void *cm_library_symbol(void *library, const char *name) { return dlsym(library, name); }

struct range {
    uintptr_t address, start, end;
};

static int find_range(struct dl_phdr_info *info, size_t size, void *data) {
    (void)size;
    struct range *range = data;
    uintptr_t start = UINTPTR_MAX, end = 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type != PT_LOAD) continue;
        uintptr_t from = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
        uintptr_t to = from + info->dlpi_phdr[i].p_memsz;
        if (from < start) start = from;
        if (to > end) end = to;
    }
    if (range->address < start || range->address >= end) return 0;
    range->start = start;
    range->end = end;
    return 1;
}

int cm_library_range(const void *address, uint64_t *start, uint64_t *end) {
    struct range range = {(uintptr_t)address, 0, 0};
    if (dl_iterate_phdr(find_range, &range) != 1) return -1;
    *start = range.start;
    *end = range.end;
    return 0;
}

int cm_directory_watch(const char *path) {
    int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (fd < 0) return -errno;
    if (inotify_add_watch(fd, path, IN_CLOSE_WRITE | IN_MOVE | IN_DELETE | IN_ATTRIB | IN_CREATE | IN_ONLYDIR) < 0) {
        int code = errno;
        close(fd);
        return -code;
    }
    return fd;
}

int cm_directory_watch_drain(int fd) {
    char buffer[4096] __attribute__((aligned(8)));
    int happened = 0;
    for (;;) {
        ssize_t count = read(fd, buffer, sizeof buffer);
        if (count > 0) {
            happened = 1;
        } else if (count < 0 && errno == EINTR) {
            continue;
        } else if (count < 0 && errno != EAGAIN) {
            return -errno;
        } else {
            return happened;
        }
    }
}

void cm_condition_init(pthread_cond_t *condition) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
}

int cm_condition_wait_until(pthread_cond_t *condition, pthread_mutex_t *mutex, uint64_t deadline) {
    struct timespec time = {(time_t)(deadline / 1000000000u), (long)(deadline % 1000000000u)};
    return pthread_cond_timedwait(condition, mutex, &time);
}
