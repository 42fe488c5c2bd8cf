/* A plugin in C: one route, one service, one kind of job.
 *
 *   GET /api/v1/helloc/{name}   greets
 *   com.example.helloc/1        greets for other plugins
 *   helloc.count                a job that counts to ten
 *
 * Everything here runs on the plugin's own thread, except `greet`, which runs on its caller's: it reads only what `load`
 * wrote once. */
#include "helloc.h"

#include <string.h>

#define TEXT(literal) ((cm_text){(literal), sizeof(literal) - 1})

static cm_host_context *host;
static const cm_http *http;
static const cm_jobs *jobs;
static const cm_log *log_lines;
static char greeting[64] = "Hello";
static uint64_t greeting_size = 5;
static uint32_t stopped;

/* ---- the service ---- */

static cm_status greet(void *context, cm_text name, cm_buffer *result) {
  (void)context;
  CM_GUARD(stopped);
  if (name.size > 256) return CM_E_TOO_LARGE;
  result->size = greeting_size + name.size + 3;
  if (result->size > result->capacity) return CM_E_TOO_SMALL;
  uint8_t *end = result->data;
  memcpy(end, greeting, greeting_size), end += greeting_size;
  memcpy(end, ", ", 2), end += 2;
  if (name.size) memcpy(end, name.data, name.size), end += name.size;
  *end = '!';
  return CM_OK;
}

static const helloc_service service = {CM_HEAD(helloc_service, 1), greet};

/* ---- the route ---- */

static void request(void *context, cm_handle request, cm_bytes body) {
  (void)body;
  uint8_t name[256], answer[512];
  cm_buffer name_room = {name, sizeof name, 0}, answer_room = {answer, sizeof answer, 0};
  cm_status status = http->request_get(host, request, CM_REQUEST_PARAMETER, TEXT("name"), &name_room);
  if (status == CM_OK) status = greet(context, (cm_text){(const char *)name, name_room.size}, &answer_room);
  if (status != CM_OK) {
    http->respond_problem(host, request, 400, TEXT("invalid"), TEXT("the name may have 256 bytes"));
    return;
  }
  http->respond(host, request, 200, TEXT("content-type: text/plain; charset=utf-8"), (cm_bytes){answer, answer_room.size});
}

static const cm_route_callbacks route = {CM_HEAD(cm_route_callbacks, 1), request, NULL, NULL, NULL, NULL};

/* ---- the job ---- */

static void run(void *context, cm_handle attempt, cm_text job, cm_bytes checkpoint) {
  (void)context, (void)job, (void)checkpoint;
  for (uint32_t step = 1; step <= 10; step++) jobs->progress(host, attempt, step * 100, TEXT("counting"));
  jobs->log(host, attempt, TEXT("counted to ten"));
  jobs->finish(host, attempt, CM_JOB_SUCCEEDED, TEXT("{\"counted\":10}"), TEXT(""), TEXT(""));
}

/* There is nothing to interrupt: `run` ends the attempt before it returns. */
static void cancel(void *context, cm_handle attempt) { (void)context, (void)attempt; }

static const cm_job_callbacks job = {CM_HEAD(cm_job_callbacks, 1), run, cancel, NULL};

/* ---- the plugin ---- */

static cm_status fail(cm_error *error, cm_status status, cm_text text) {
  if (error) {
    memset(error, 0, sizeof *error);
    error->status = status;
    error->text_size = text.size < sizeof error->text ? (uint32_t)text.size : (uint32_t)sizeof error->text;
    memcpy(error->text, text.data, error->text_size);
  }
  return status;
}

static cm_status load(void *context, const cm_host *core, cm_error *error) {
  (void)context;
  const void *config_table = NULL, *services_table = NULL, *http_table = NULL, *jobs_table = NULL, *log_table = NULL;
  cm_status status;
  if (!CM_HAS(core, interface_get)) return fail(error, CM_E_UNSUPPORTED, TEXT("a core without interface_get"));
  host = core->context;
  CM_STARTED(stopped);
  if ((status = core->interface_get(host, TEXT(CM_INTERFACE_LOG), 0, &log_table, error))) return status;
  if ((status = core->interface_get(host, TEXT(CM_INTERFACE_CONFIG), 0, &config_table, error))) return status;
  if ((status = core->interface_get(host, TEXT(CM_INTERFACE_SERVICES), 0, &services_table, error))) return status;
  if ((status = core->interface_get(host, TEXT(CM_INTERFACE_HTTP), 0, &http_table, error))) return status;
  log_lines = log_table, http = http_table;
  const cm_config *config = config_table;
  const cm_services *services = services_table;
  /* What is used later is looked for once, here: after this no call needs a check. */
  if (!CM_HAS(log_lines, write) || !CM_HAS(config, get) || !CM_HAS(services, publish) || !CM_HAS(http, route_add) ||
      !CM_HAS(http, request_get) || !CM_HAS(http, respond) || !CM_HAS(http, respond_problem))
    return fail(error, CM_E_UNSUPPORTED, TEXT("the core is too old for helloc"));

  cm_buffer room = {(uint8_t *)greeting, sizeof greeting, 0};
  status = config->get(host, TEXT("/greeting"), &room);
  if (status == CM_OK) greeting_size = room.size;
  else if (status != CM_E_NOT_FOUND) return fail(error, status, TEXT("the greeting may have 64 bytes"));

  if ((status = services->publish(host, TEXT(HELLOC_SERVICE), &service.head, NULL, error))) return status;
  cm_handle handle;
  status = http->route_add(host,
                           TEXT("{\"method\":\"GET\",\"path\":\"/api/v1/helloc/{name}\",\"right\":\"helloc.read\","
                                "\"operation\":{\"summary\":\"Greets somebody.\",\"responses\":"
                                "{\"200\":{\"description\":\"The greeting.\"}}}}"),
                           &route, NULL, &handle, error);
  if (status) return status;

  /* Where jobs are not granted, or the core has none, the rest works without. */
  if (core->interface_get(host, TEXT(CM_INTERFACE_JOBS), 0, &jobs_table, NULL) != CM_OK) return CM_OK;
  jobs = jobs_table;
  if (!CM_HAS(jobs, kind_add) || !CM_HAS(jobs, progress) || !CM_HAS(jobs, log) || !CM_HAS(jobs, finish)) return CM_OK;
  return jobs->kind_add(host,
                        TEXT("{\"name\":\"helloc.count\",\"summary\":\"Counts to ten.\",\"guarantee\":\"idempotent\"}"),
                        &job, NULL, &handle, error);
}

static cm_status start(void *context, cm_error *error) {
  (void)context, (void)error;
  log_lines->write(host, CM_LOG_INFO, TEXT("helloc.started"), TEXT(""));
  return CM_OK;
}

static void stop(void *context) {
  (void)context;
  CM_STOPPED(stopped);
}

static const cm_plugin plugin = {
    CM_HEAD(cm_plugin, 1), NULL, CM_PLUGIN_ID, CM_PLUGIN_VERSION, load, start, NULL, NULL, stop,
};

CM_EXPORT const cm_plugin *cm_plugin_entry(uint32_t host_abi_major, uint32_t host_abi_minor) {
  (void)host_abi_minor;
  return host_abi_major == CM_ABI_MAJOR ? &plugin : NULL;
}
