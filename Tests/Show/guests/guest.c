/* One file, many guests: each is compiled with -DGUEST_… and misbehaves in one way. */
#ifdef GUEST_INLINE_FAULT
#define CAPABILITIES ",\"inline\""
#endif
#ifdef GUEST_INLINE_LOOP
#define CAPABILITIES ",\"inline\""
#endif
#ifndef CAPABILITIES
#define CAPABILITIES ""
#endif
#include "guest.h"
#include <pthread.h>
#include <unistd.h>

#ifdef GUEST_MISSING_SYMBOL
extern void nobody_has_this_function(void);
#endif
#ifdef GUEST_MISSING_LIBRARY
extern void gone_library_function(void);
#endif

#ifdef GUEST_CONSTRUCTOR_CRASH
__attribute__((constructor)) static void crash_early(void) { abort(); }
#endif
#ifdef GUEST_CONSTRUCTOR_HANG
__attribute__((constructor)) static void hang_early(void) { for (;;) pause(); }
#endif
#ifdef GUEST_CONSTRUCTOR_EXIT
__attribute__((constructor)) static void leave_early(void) { _exit(0); }
#endif

#ifdef GUEST_OVERFLOW
static int overflow(int depth) {
  volatile char page[4096];
  page[0] = (char)depth;
  return depth < 1 << 30 ? overflow(depth + 1) + page[0] : 0;
}
#endif

static void bad(void *context, cm_handle request, cm_bytes body) {
  (void)context;
  (void)body;
  (void)request;
#if defined(GUEST_ABORT)
  abort();
#elif defined(GUEST_FAULT) || defined(GUEST_INLINE_FAULT)
  *(volatile int *)16 = 1;
#elif defined(GUEST_LOOP) || defined(GUEST_INLINE_LOOP)
  for (volatile int i = 0;; i = i + 1) {
  }
#elif defined(GUEST_OVERFLOW)
  overflow(1);
#elif defined(GUEST_DOUBLE)
  cm_status first = answer(request, "{\"ok\":true}");
  cm_status second = answer(request, "{\"ok\":false}");
  fprintf(stderr, "double: %d %d\n", first, second);
#elif defined(GUEST_EXIT)
  exit(0);
#elif defined(GUEST_FLOOD)
  int taken = 0, refused = 0;
  for (int i = 0; i < 100000; i++) {
    if (logger->write(host->context, CM_LOG_INFO, text("flood"), text("{}")) == CM_OK) taken++;
    else refused++;
  }
  char line[96];
  snprintf(line, sizeof line, "{\"taken\":%d,\"refused\":%d}", taken, refused);
  answer(request, line);
#elif defined(GUEST_OTHER_THREAD)
  answer(request, "{\"ok\":true}");
#else
  say_ok(context, request, body);
#endif
}
static const cm_route_callbacks bad_callbacks = {CM_HEAD(cm_route_callbacks, 1), bad, NULL, NULL, NULL, NULL};

#ifdef GUEST_OTHER_THREAD
static void *elsewhere(void *unused) {
  (void)unused;
  cm_handle route_handle;
  cm_status status = http->route_add(host->context, text("{}"), &ok_callbacks, NULL, &route_handle, NULL);
  fprintf(stderr, "other-thread: %d\n", status);
  return NULL;
}
#endif

static cm_status load(void *context, const cm_host *given, cm_error *error) {
  (void)context;
  take_interfaces(given);
#ifdef GUEST_LOAD_FAILS
  cm_handle unused;
  route("half", "", &ok_callbacks, NULL);
  (void)unused;
  error->status = CM_E_INTERNAL;
  error->text_size = (uint32_t)snprintf(error->text, sizeof error->text, "the guest does not want to");
  return CM_E_INTERNAL;
#endif
#ifdef GUEST_INLINE_FAULT
  if (route("bad", "\"inline\":true,", &bad_callbacks, error) != CM_OK) return CM_E_INTERNAL;
#elif defined(GUEST_INLINE_LOOP)
  if (route("bad", "\"inline\":true,", &bad_callbacks, error) != CM_OK) return CM_E_INTERNAL;
#else
  if (route("bad", "", &bad_callbacks, error) != CM_OK) return CM_E_INTERNAL;
#endif
  return route("ok", "", &ok_callbacks, error);
}

static cm_status start(void *context, cm_error *error) {
  (void)context;
  (void)error;
#ifdef GUEST_OTHER_THREAD
  pthread_t thread;
  pthread_create(&thread, NULL, elsewhere, NULL);
  pthread_join(thread, NULL);
#endif
#ifdef GUEST_MISSING_SYMBOL
  if (!host) nobody_has_this_function();
#endif
#ifdef GUEST_MISSING_LIBRARY
  if (!host) gone_library_function();
#endif
  return CM_OK;
}

#ifdef GUEST_AFTER_STOP
static void *later(void *unused) {
  (void)unused;
  for (int i = 0; i < 200; i++) {
    usleep(10000);
    cm_status status = logger->write(host->context, CM_LOG_INFO, text("ghost"), text("{}"));
    if (status == CM_E_GONE) {
      fprintf(stderr, "after-stop: %d\n", status);
      return NULL;
    }
  }
  return NULL;
}
#endif

static void stop(void *context) {
  (void)context;
#ifdef GUEST_AFTER_STOP
  pthread_t thread;
  pthread_create(&thread, NULL, later, NULL);
  pthread_detach(thread);
#endif
}

#if defined(GUEST_NO_ENTRY) || defined(GUEST_REFUSES)
extern const cm_plugin plugin;
#elif defined(GUEST_SMALL_TABLE)
static const cm_plugin plugin = {{16, 1}, NULL, ID, VERSION, load, start, NULL, NULL, stop};
#elif defined(GUEST_LARGE_TABLE)
static const struct {
  cm_plugin known;
  void *newer[8];
} plugin_table = {{{sizeof(cm_plugin) + 64, 1}, NULL, ID, VERSION, load, start, NULL, NULL, stop}, {0}};
#define plugin plugin_table.known
#elif defined(GUEST_OTHER_ID)
static const cm_plugin plugin = {CM_HEAD(cm_plugin, 1), NULL, "com.guests.other", VERSION, load, start, NULL, NULL, stop};
#else
static const cm_plugin plugin = {CM_HEAD(cm_plugin, 1), NULL, ID, VERSION, load, start, NULL, NULL, stop};
#endif

#ifndef GUEST_NO_ENTRY
const cm_plugin *cm_plugin_entry(uint32_t major, uint32_t minor) {
  (void)minor;
#ifdef GUEST_REFUSES
  (void)major;
  return NULL;
#else
  return major == CM_ABI_MAJOR ? &plugin : NULL;
#endif
}
#endif
