/* One plugin, wrong in one way: which is said by FAULT. Tests/PluginABI/run builds each and expects that `plugin check`
 * names what is wrong. Without FAULT it is right, so that it is the fault which is found. */
#include "client_manager_plugin.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

enum {
  RIGHT, CRASH_ON_FAILURE, WRITES_NULL_ERROR, READS_PAST_TABLE, ANSWERS_TWICE, NEVER_ANSWERS, NO_GUARD, CALLS_AFTER_STOP,
  WRONG_THREAD, HANGS_IN_LOAD, ACCEPTS_ANY_MAJOR, WRONG_ID, PUBLISHES_UNKNOWN, ACQUIRES_IN_LOAD, FINISHES_TWICE,
  INLINE_WAITS, LEAKS_LEASE, NO_RESPONSES, ENDS_PROCESS, KEEPS_REQUEST, SECOND_LOAD_FAILS, RELEASES_TWICE, NOT_UTF8, STATUS_POSITIVE
};
#ifndef FAULT
#define FAULT RIGHT
#endif
#define ROUTE "{\"method\":\"GET\",\"path\":\"/api/v1/faulty\",\"right\":\"faulty.read\","
#define OPERATION "\"operation\":{\"summary\":\"Answers.\",\"responses\":{\"200\":{\"description\":\"Nothing.\"}}}"
#define TEXT(literal) ((cm_text){(literal), sizeof(literal) - 1})

static cm_host_context *host;
static const cm_http *http;
static const cm_jobs *jobs;
static const cm_services *services;
static const cm_store *store;
static const cm_log *lines;
static uint32_t stopped;
static int loads;

static cm_status answer(void *context) {
  (void)context;
  if (FAULT != NO_GUARD) CM_GUARD(stopped);
  return CM_OK;
}
typedef struct table { cm_head head; cm_status (*answer)(void *context); } table;
static const table published = {CM_HEAD(table, 1), answer};

static void *elsewhere(void *unused) {
  (void)unused;
  services->withdraw(host, TEXT("com.example.faulty/1"));
  return NULL;
}

static void *later(void *unused) {
  (void)unused;
  while (!cm_word_load(&stopped)) usleep(1000);
  usleep(30000);
  lines->write(host, CM_LOG_INFO, TEXT("faulty.late"), TEXT(""));
  return NULL;
}

static void request(void *context, cm_handle request, cm_bytes body) {
  (void)context, (void)body;
  if (FAULT == NEVER_ANSWERS) return;
  if (FAULT == INLINE_WAITS) {
    cm_handle transaction;
    if (store->begin(host, &transaction) == CM_OK) store->discard(host, transaction);
  }
  if (FAULT == ENDS_PROCESS) _exit(3);
  http->respond(host, request, 200, FAULT == NOT_UTF8 ? TEXT("x-name: \xff") : TEXT(""), (cm_bytes){NULL, 0});
  if (FAULT == ANSWERS_TWICE) http->respond(host, request, 200, TEXT(""), (cm_bytes){NULL, 0});
  if (FAULT == KEEPS_REQUEST) {
    uint8_t room[16];
    cm_buffer buffer = {room, sizeof room, 0};
    http->request_get(host, request, CM_REQUEST_METHOD, TEXT(""), &buffer);
  }
}
static const cm_route_callbacks route = {CM_HEAD(cm_route_callbacks, 1), request, NULL, NULL, NULL, NULL};

static void run(void *context, cm_handle attempt, cm_text job, cm_bytes checkpoint) {
  (void)context, (void)job, (void)checkpoint;
  jobs->finish(host, attempt, CM_JOB_SUCCEEDED, TEXT(""), TEXT(""), TEXT(""));
  if (FAULT == FINISHES_TWICE) jobs->finish(host, attempt, CM_JOB_SUCCEEDED, TEXT(""), TEXT(""), TEXT(""));
}
static const cm_job_callbacks job = {CM_HEAD(cm_job_callbacks, 1), run, NULL, NULL};

static cm_status load(void *context, const cm_host *core, cm_error *error) {
  (void)context;
  const void *found[5] = {NULL, NULL, NULL, NULL, NULL};
  cm_status status;
  host = core->context;
  CM_STARTED(stopped);
  if (FAULT == HANGS_IN_LOAD) for (;;) pause();
  if (FAULT == SECOND_LOAD_FAILS && loads++) return CM_E_STATE;
  const char *names[] = {CM_INTERFACE_HTTP, CM_INTERFACE_JOBS, CM_INTERFACE_SERVICES, CM_INTERFACE_STORE, CM_INTERFACE_LOG};
  for (int i = 0; i < 5; i++) {
    status = core->interface_get(host, (cm_text){names[i], strlen(names[i])}, 0, &found[i], error);
    if (status && FAULT == WRITES_NULL_ERROR) error->status = status;
    if (status && FAULT != CRASH_ON_FAILURE) return status;
  }
  http = found[0], jobs = found[1], services = found[2], store = found[3], lines = found[4];
  if (FAULT != READS_PAST_TABLE && FAULT != CRASH_ON_FAILURE &&
      (!CM_HAS(http, route_add) || !CM_HAS(http, request_get) || !CM_HAS(http, respond) || !CM_HAS(jobs, kind_add) ||
       !CM_HAS(jobs, finish) || !CM_HAS(services, publish) || !CM_HAS(services, withdraw) || !CM_HAS(services, release) ||
       !CM_HAS(services, acquire) || !CM_HAS(store, begin) || !CM_HAS(store, discard) || !CM_HAS(lines, write)))
    return CM_E_UNSUPPORTED;
  if (FAULT == STATUS_POSITIVE) return 7;
  status = services->publish(host, FAULT == PUBLISHES_UNKNOWN ? TEXT("com.example.other/1") : TEXT("com.example.faulty/1"),
                             &published.head, NULL, error);
  if (status) return status;
  if (FAULT == ACQUIRES_IN_LOAD) {
    cm_lease lease = {CM_HEAD(cm_lease, 1), 0, NULL, NULL, NULL};
    services->acquire(host, TEXT("com.example.wanted/1"), 0, NULL, NULL, &lease, NULL);
  }
  cm_handle handle;
  status = http->route_add(host,
                           FAULT == INLINE_WAITS   ? TEXT(ROUTE OPERATION ",\"inline\":true}")
                           : FAULT == NO_RESPONSES ? TEXT(ROUTE "\"operation\":{\"summary\":\"Answers.\"}}")
                                                   : TEXT(ROUTE OPERATION "}"),
                           &route, NULL, &handle, error);
  if (status) return status;
  return jobs->kind_add(host, TEXT("{\"name\":\"faulty.run\",\"summary\":\"Runs.\",\"guarantee\":\"idempotent\"}"), &job,
                        NULL, &handle, error);
}

static cm_status start(void *context, cm_error *error) {
  (void)context, (void)error;
  pthread_t thread;
  if (FAULT == WRONG_THREAD && !pthread_create(&thread, NULL, elsewhere, NULL)) pthread_join(thread, NULL);
  if (FAULT == CALLS_AFTER_STOP && !pthread_create(&thread, NULL, later, NULL)) pthread_detach(thread);
  static cm_lease lease = {CM_HEAD(cm_lease, 1), 0, NULL, NULL, NULL};
  if (FAULT == LEAKS_LEASE) return services->acquire(host, TEXT("com.example.faulty/1"), 0, NULL, NULL, &lease, error);
  if (FAULT == RELEASES_TWICE) services->release(host, 4711);
  return CM_OK;
}

static void stop(void *context) {
  (void)context;
  CM_STOPPED(stopped);
}

static const cm_plugin plugin = {
    CM_HEAD(cm_plugin, 1), NULL, FAULT == WRONG_ID ? "com.example.other" : CM_PLUGIN_ID, CM_PLUGIN_VERSION, load, start, NULL,
    NULL, stop,
};

CM_EXPORT const cm_plugin *cm_plugin_entry(uint32_t major, uint32_t minor) {
  (void)minor;
  return FAULT == ACCEPTS_ANY_MAJOR || major == CM_ABI_MAJOR ? &plugin : NULL;
}
