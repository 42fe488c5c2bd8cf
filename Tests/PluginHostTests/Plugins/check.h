/* What the test plugins of this folder have in common: a route GET /api/v1/AREA/check/STEP that runs the checks of a
 * step on the plugin's own thread and answers "ok N" or one line per check that failed. */
#ifndef CHECK_H
#define CHECK_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "client_manager_plugin.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const cm_host *host;
static const cm_http *http;
static cm_error error;
static pthread_mutex_t failures_lock = PTHREAD_MUTEX_INITIALIZER;
static char failures[16384];
static int checks;

#define H (host->context)
#define T(text) ((cm_text){ (text), strlen(text) })
#define B(text) ((cm_bytes){ (const uint8_t *)(text), strlen(text) })
#define ROOM(array) ((cm_buffer){ (uint8_t *)(array), sizeof(array), 0 })
#define NO_ROOM ((cm_buffer){ NULL, 0, 0 })

static void fail(int line, const char *what, int got, const char *code) {
  size_t used = strlen(failures);
  snprintf(failures + used, sizeof(failures) - used, "line %d: %s: %d %s\n", line, what, got, code);
}

/* The condition holds. */
#define HOLDS(condition)                                     \
  do {                                                       \
    pthread_mutex_lock(&failures_lock);                      \
    checks++;                                                \
    if (!(condition)) fail(__LINE__, #condition, 0, "");     \
    pthread_mutex_unlock(&failures_lock);                    \
  } while (0)

/* The call answers this status. */
#define GIVES(status, call)                                                                       \
  do {                                                                                            \
    memset(&error, 0, sizeof(error));                                                             \
    cm_status got_ = (call);                                                                      \
    pthread_mutex_lock(&failures_lock);                                                           \
    checks++;                                                                                     \
    if (got_ != (status)) fail(__LINE__, #call " is not " #status, got_, error.text);             \
    pthread_mutex_unlock(&failures_lock);                                                         \
  } while (0)

#define CODE(text) HOLDS(error.code_size == strlen(text) && memcmp(error.code, text, strlen(text)) == 0)

static inline int same(cm_buffer *buffer, const char *text) {
  return buffer->size == strlen(text) && memcmp(buffer->data, text, buffer->size) == 0;
}

static inline int holds(cm_buffer *buffer, const char *text) {
  return buffer->size <= buffer->capacity && memmem(buffer->data, buffer->size, text, strlen(text)) != NULL;
}

static const void *interface(const char *name, cm_status expected) {
  const void *table = NULL;
  GIVES(expected, host->interface_get(H, T(name), 0, &table, &error));
  return table;
}

/* The answer to a step, from any thread. */
static void answer(cm_handle request) {
  char text[sizeof(failures) + 64];
  pthread_mutex_lock(&failures_lock);
  int length = snprintf(text, sizeof(text), failures[0] ? "%s" : "ok %.0s%d", failures, checks);
  failures[0] = 0;
  checks = 0;
  pthread_mutex_unlock(&failures_lock);
  http->respond(H, request, 200, T("content-type: text/plain"), (cm_bytes){ (const uint8_t *)text, (uint64_t)length });
}

/* Runs `function` on a thread that is none of the core's, and waits for it. */
static inline void elsewhere(void *(*function)(void *), void *context) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, function, context) == 0) pthread_join(thread, NULL);
}

/* Each plugin has these; `check` returns 1 when the step is done, 0 when it answers later. */
static int check(cm_handle request, const char *step);
static cm_status on_load(void);
static cm_status on_start(void);
static void on_stop(void);

static void check_request(void *context, cm_handle request, cm_bytes body) {
  char step[64] = "";
  cm_buffer room = { (uint8_t *)step, sizeof(step) - 1, 0 };
  (void)context;
  (void)body;
  http->request_get(H, request, CM_REQUEST_PARAMETER, T("step"), &room);
  if (check(request, step)) answer(request);
}

static cm_status check_load(void *context, const cm_host *given, cm_error *why) {
  const void *table = NULL;
  (void)context;
  host = given;
  cm_status status = host->interface_get(H, T(CM_INTERFACE_HTTP), 0, &table, why);
  if (status != CM_OK) return status;
  http = (const cm_http *)table;
  static cm_route_callbacks callbacks = { CM_HEAD(cm_route_callbacks, 1), check_request, NULL, NULL, NULL, NULL };
  cm_handle route;
  status = http->route_add(
      H, T("{\"method\":\"GET\",\"path\":\"/api/v1/" AREA "/check/{step}\",\"right\":\"" AREA ".read\",\"timeout_s\":20,"
           "\"operation\":{\"summary\":\"Checks.\",\"responses\":{\"200\":{\"description\":\"What was found.\"}}}}"),
      &callbacks, NULL, &route, why);
  return status == CM_OK ? on_load() : status;
}

static cm_status check_start(void *context, cm_error *why) {
  (void)context;
  (void)why;
  return on_start();
}

static void check_stop(void *context) {
  (void)context;
  on_stop();
}

static const cm_plugin check_plugin = { CM_HEAD(cm_plugin, 1), NULL, ID, VERSION, check_load, check_start, NULL, NULL, check_stop };

CM_EXPORT const cm_plugin *cm_plugin_entry(uint32_t major, uint32_t minor) {
  (void)minor;
  return major == CM_ABI_MAJOR ? &check_plugin : NULL;
}

#define NOTE(capabilities)                                                                                              \
  CM_PLUGIN_NOTE("{\"id\":\"" ID "\",\"version\":\"" VERSION "\",\"capabilities\":" capabilities ",\"routes\":[\"" AREA "\"]}")
#endif
