/* ABI 1.0, all of it: every interface, every function, every kind of registration. Frozen: never changed after 1.0. */
#include "client_manager_plugin.h"

#include <string.h>

#define TEXT(literal) ((cm_text){(literal), sizeof(literal) - 1})

static cm_host_context *host;
static uint32_t stopped;
static cm_handle calls;
static const cm_log *log_table;
static const cm_config *config_table;
static const cm_services *services_table;
static const cm_http *http_table;
static const cm_clients *clients_table;
static const cm_commands *commands_table;
static const cm_channels *channels_table;
static const cm_jobs *jobs_table;
static const cm_events *events_table;
static const cm_store *store_table;
static const cm_crypto *crypto_table;
static const cm_audit *audit_table;
static const cm_metrics *metrics_table;
static const cm_executor *executor_table;

static int has_log(void) {
  return CM_HAS(log_table, write) && CM_HAS(log_table, is_enabled);
}

static int has_config(void) {
  return CM_HAS(config_table, read) && CM_HAS(config_table, get);
}

static int has_services(void) {
  return CM_HAS(services_table, publish) && CM_HAS(services_table, withdraw) && CM_HAS(services_table, acquire) &&
         CM_HAS(services_table, release) && CM_HAS(services_table, watch) && CM_HAS(services_table, unwatch);
}

static int has_http(void) {
  return CM_HAS(http_table, route_add) && CM_HAS(http_table, route_remove) && CM_HAS(http_table, asset_add) &&
         CM_HAS(http_table, request_get) && CM_HAS(http_table, request_may) && CM_HAS(http_table, request_more) &&
         CM_HAS(http_table, respond) && CM_HAS(http_table, respond_problem) && CM_HAS(http_table, respond_begin) &&
         CM_HAS(http_table, respond_write) && CM_HAS(http_table, respond_end) && CM_HAS(http_table, respond_abort) &&
         CM_HAS(http_table, websocket_accept) && CM_HAS(http_table, websocket_send) &&
         CM_HAS(http_table, websocket_receive) && CM_HAS(http_table, websocket_close) && CM_HAS(http_table, ticket_issue);
}

static int has_clients(void) {
  return CM_HAS(clients_table, get) && CM_HAS(clients_table, select) && CM_HAS(clients_table, is_online) &&
         CM_HAS(clients_table, set_labels);
}

static int has_commands(void) {
  return CM_HAS(commands_table, run) && CM_HAS(commands_table, watch) && CM_HAS(commands_table, unwatch) &&
         CM_HAS(commands_table, cancel) && CM_HAS(commands_table, output);
}

static int has_channels(void) {
  return CM_HAS(channels_table, open) && CM_HAS(channels_table, attach) && CM_HAS(channels_table, list) &&
         CM_HAS(channels_table, write) && CM_HAS(channels_table, grant) && CM_HAS(channels_table, resize) &&
         CM_HAS(channels_table, close) && CM_HAS(channels_table, detach);
}

static int has_jobs(void) {
  return CM_HAS(jobs_table, kind_add) && CM_HAS(jobs_table, kind_remove) && CM_HAS(jobs_table, submit) &&
         CM_HAS(jobs_table, cancel) && CM_HAS(jobs_table, get) && CM_HAS(jobs_table, checkpoint) &&
         CM_HAS(jobs_table, progress) && CM_HAS(jobs_table, log) && CM_HAS(jobs_table, finish);
}

static int has_events(void) {
  return CM_HAS(events_table, publish) && CM_HAS(events_table, subscribe) && CM_HAS(events_table, unsubscribe);
}

static int has_store(void) {
  return CM_HAS(store_table, get) && CM_HAS(store_table, list) && CM_HAS(store_table, begin) && CM_HAS(store_table, put) &&
         CM_HAS(store_table, remove) && CM_HAS(store_table, expect) && CM_HAS(store_table, commit) &&
         CM_HAS(store_table, discard) && CM_HAS(store_table, blob_append) && CM_HAS(store_table, blob_sync) &&
         CM_HAS(store_table, blob_read) && CM_HAS(store_table, blob_size) && CM_HAS(store_table, blob_remove);
}

static int has_crypto(void) {
  return CM_HAS(crypto_table, random) && CM_HAS(crypto_table, sha256) && CM_HAS(crypto_table, hmac_sha256) &&
         CM_HAS(crypto_table, seal) && CM_HAS(crypto_table, unseal);
}

static int has_audit(void) {
  return CM_HAS(audit_table, write) && CM_HAS(audit_table, sink) && CM_HAS(audit_table, sink_remove);
}

static int has_metrics(void) {
  return CM_HAS(metrics_table, define) && CM_HAS(metrics_table, add) && CM_HAS(metrics_table, set);
}

static int has_executor(void) {
  return CM_HAS(executor_table, post) && CM_HAS(executor_table, blocking) && CM_HAS(executor_table, timer) &&
         CM_HAS(executor_table, timer_cancel) && CM_HAS(executor_table, now_ms) && CM_HAS(executor_table, is_own_thread);
}

static cm_status fail(cm_error *error, cm_status status, cm_text text) {
  if (error) {
    memset(error, 0, sizeof *error);
    error->status = status;
    error->text_size = (uint32_t)text.size;
    memcpy(error->text, text.data, text.size);
  }
  return status;
}

static cm_status get(const cm_host *core, cm_text name, size_t size, const void **found, cm_error *error) {
  return core->interface_get(core->context, name, (uint32_t)size, found, error);
}

/* ---- a service ---- */

static cm_status add(void *context, int64_t value, int64_t *sum) {
  CM_GUARD(stopped);
  *sum = *(int64_t *)context + value;
  return CM_OK;
}
typedef struct sum_service {
  cm_head head;
  cm_status (*add)(void *context, int64_t value, int64_t *sum);
} sum_service;
static const sum_service service = {CM_HEAD(sum_service, 1), add};
static int64_t base = 40;

/* ---- callbacks ---- */

static void destroy(void *context) { (void)context; }

static void request(void *context, cm_handle request, cm_bytes body) {
  uint8_t room[256];
  cm_buffer value = {room, sizeof room, 0};
  (void)context, (void)body;
  http_table->request_get(host, request, CM_REQUEST_ACTOR, TEXT(""), &value);
  if (!http_table->request_may(host, request, TEXT("everything.read"), TEXT(""))) {
    http_table->respond_problem(host, request, 403, TEXT("forbidden"), TEXT("not for you"));
    return;
  }
  http_table->respond_begin(host, request, 200, TEXT("content-type: text/plain"), -1);
  http_table->respond_write(host, request, (cm_bytes){(const uint8_t *)"all", 3});
  http_table->respond_end(host, request);
}
static void gone(void *context, cm_handle request) { (void)context, (void)request; }
static void piece(void *context, cm_handle request, cm_bytes bytes, uint32_t last) {
  (void)context, (void)bytes;
  if (last) http_table->respond(host, request, 204, TEXT(""), (cm_bytes){NULL, 0});
  else http_table->request_more(host, request, 65536);
}
static void stream(void *context, cm_handle request, cm_bytes body) {
  (void)context, (void)body;
  http_table->request_more(host, request, 65536);
}
static const cm_route_callbacks route = {CM_HEAD(cm_route_callbacks, 1), request, NULL, gone, gone, destroy};
static const cm_route_callbacks upload = {CM_HEAD(cm_route_callbacks, 1), stream, piece, gone, gone, destroy};

static void message(void *context, cm_handle socket, uint32_t kind, cm_bytes payload) {
  (void)context;
  http_table->websocket_send(host, socket, kind, payload);
}
static void writable(void *context, cm_handle socket) { (void)context, (void)socket; }
static void closed(void *context, cm_handle socket, uint32_t code, cm_text reason) {
  (void)context, (void)socket, (void)code, (void)reason;
}
static const cm_websocket_callbacks socket_callbacks = {CM_HEAD(cm_websocket_callbacks, 1), message, writable, closed, destroy};
static void upgrade(void *context, cm_handle request, cm_bytes body) {
  cm_handle socket;
  (void)context, (void)body;
  if (http_table->websocket_accept(host, request, &socket_callbacks, NULL, &socket, NULL) == CM_OK)
    http_table->websocket_receive(host, socket, 1);
}
static const cm_route_callbacks socket_route = {CM_HEAD(cm_route_callbacks, 1), upgrade, NULL, NULL, gone, destroy};

static void run(void *context, cm_handle attempt, cm_text job, cm_bytes checkpoint) {
  cm_handle transaction;
  (void)context, (void)job, (void)checkpoint;
  if (store_table->begin(host, &transaction) == CM_OK) {
    store_table->put(host, transaction, TEXT("runs"), (cm_bytes){(const uint8_t *)"1", 1});
    jobs_table->checkpoint(host, attempt, (cm_bytes){(const uint8_t *)"half", 4}, transaction, NULL);
  }
  jobs_table->progress(host, attempt, 500, TEXT("half"));
  jobs_table->log(host, attempt, TEXT("half"));
  jobs_table->finish(host, attempt, CM_JOB_SUCCEEDED, TEXT("{}"), TEXT(""), TEXT(""));
}
static void cancel(void *context, cm_handle attempt) { (void)context, (void)attempt; }
static const cm_job_callbacks job = {CM_HEAD(cm_job_callbacks, 1), run, cancel, destroy};

static void event(void *context, cm_text kind, cm_text json) { (void)context, (void)kind, (void)json; }
static void missed(void *context, uint64_t count) { (void)context, (void)count; }
static const cm_event_callbacks events = {CM_HEAD(cm_event_callbacks, 1), event, missed, destroy};

static cm_status record(void *context, uint64_t sequence, cm_text json) {
  (void)context, (void)sequence, (void)json;
  return CM_OK;
}
static const cm_audit_callbacks sink = {CM_HEAD(cm_audit_callbacks, 1), record, destroy};

static void changed(void *context, cm_text name, uint32_t available) { (void)context, (void)name, (void)available; }
static const cm_service_callbacks watch = {CM_HEAD(cm_service_callbacks, 1), changed, destroy};

static void tick(void *context) {
  (void)context;
  metrics_table->add(host, calls, 1);
}

/* ---- the plugin ---- */

static cm_status load(void *context, const cm_host *core, cm_error *error) {
  const void *found = NULL;
  cm_status status;
  cm_handle handle;
  (void)context;
  if (!CM_HAS(core, interface_get)) return CM_E_UNSUPPORTED;
  host = core->context;
  CM_STARTED(stopped);
  if ((status = get(core, TEXT(CM_INTERFACE_LOG), sizeof(cm_log), &found, error)) != CM_OK) return status;
  log_table = found;
  if (!has_log()) return fail(error, CM_E_UNSUPPORTED, TEXT("cm.log/1 is not whole"));
  if ((status = get(core, TEXT(CM_INTERFACE_CONFIG), sizeof(cm_config), &found, error)) != CM_OK) return status;
  config_table = found;
  if (!has_config()) return fail(error, CM_E_UNSUPPORTED, TEXT("cm.config/1 is not whole"));
  if ((status = get(core, TEXT(CM_INTERFACE_SERVICES), sizeof(cm_services), &found, error)) != CM_OK) return status;
  services_table = found;
  if (!has_services()) return fail(error, CM_E_UNSUPPORTED, TEXT("cm.services/1 is not whole"));
  if ((status = get(core, TEXT(CM_INTERFACE_HTTP), sizeof(cm_http), &found, error)) != CM_OK) return status;
  http_table = found;
  if (!has_http()) return fail(error, CM_E_UNSUPPORTED, TEXT("cm.http/1 is not whole"));
  if ((status = get(core, TEXT(CM_INTERFACE_CLIENTS), sizeof(cm_clients), &found, error)) != CM_OK) return status;
  clients_table = found;
  if (!has_clients()) return fail(error, CM_E_UNSUPPORTED, TEXT("cm.clients/1 is not whole"));
  if ((status = get(core, TEXT(CM_INTERFACE_COMMANDS), sizeof(cm_commands), &found, error)) != CM_OK) return status;
  commands_table = found;
  if (!has_commands()) return fail(error, CM_E_UNSUPPORTED, TEXT("cm.commands/1 is not whole"));
  if ((status = get(core, TEXT(CM_INTERFACE_CHANNELS), sizeof(cm_channels), &found, error)) != CM_OK) return status;
  channels_table = found;
  if (!has_channels()) return fail(error, CM_E_UNSUPPORTED, TEXT("cm.channels/1 is not whole"));
  if ((status = get(core, TEXT(CM_INTERFACE_JOBS), sizeof(cm_jobs), &found, error)) != CM_OK) return status;
  jobs_table = found;
  if (!has_jobs()) return fail(error, CM_E_UNSUPPORTED, TEXT("cm.jobs/1 is not whole"));
  if ((status = get(core, TEXT(CM_INTERFACE_EVENTS), sizeof(cm_events), &found, error)) != CM_OK) return status;
  events_table = found;
  if (!has_events()) return fail(error, CM_E_UNSUPPORTED, TEXT("cm.events/1 is not whole"));
  if ((status = get(core, TEXT(CM_INTERFACE_STORE), sizeof(cm_store), &found, error)) != CM_OK) return status;
  store_table = found;
  if (!has_store()) return fail(error, CM_E_UNSUPPORTED, TEXT("cm.store/1 is not whole"));
  if ((status = get(core, TEXT(CM_INTERFACE_CRYPTO), sizeof(cm_crypto), &found, error)) != CM_OK) return status;
  crypto_table = found;
  if (!has_crypto()) return fail(error, CM_E_UNSUPPORTED, TEXT("cm.crypto/1 is not whole"));
  if ((status = get(core, TEXT(CM_INTERFACE_AUDIT), sizeof(cm_audit), &found, error)) != CM_OK) return status;
  audit_table = found;
  if (!has_audit()) return fail(error, CM_E_UNSUPPORTED, TEXT("cm.audit/1 is not whole"));
  if ((status = get(core, TEXT(CM_INTERFACE_METRICS), sizeof(cm_metrics), &found, error)) != CM_OK) return status;
  metrics_table = found;
  if (!has_metrics()) return fail(error, CM_E_UNSUPPORTED, TEXT("cm.metrics/1 is not whole"));
  if ((status = get(core, TEXT(CM_INTERFACE_EXECUTOR), sizeof(cm_executor), &found, error)) != CM_OK) return status;
  executor_table = found;
  if (!has_executor()) return fail(error, CM_E_UNSUPPORTED, TEXT("cm.executor/1 is not whole"));
  uint8_t room[1024];
  cm_buffer section = {room, sizeof room, 0};
  if ((status = config_table->read(host, &section)) != CM_OK) return fail(error, status, TEXT("no configuration"));
  if ((status = services_table->publish(host, TEXT("com.example.everything/1"), &service.head, &base, error)) != CM_OK)
    return status;
  if ((status = http_table->route_add(host,
                                      TEXT("{\"method\":\"GET\",\"path\":\"/api/v1/everything\","
                                           "\"right\":\"everything.read\",\"operation\":{\"summary\":\"All.\",\"responses\":{\"200\":{\"description\":\"It.\"}}}}"),
                                      &route, NULL, &handle, error)) != CM_OK)
    return status;
  if ((status = http_table->route_add(host,
                                      TEXT("{\"method\":\"PUT\",\"path\":\"/api/v1/everything\","
                                           "\"right\":\"everything.write\",\"operation\":{\"summary\":\"All.\",\"responses\":{\"200\":{\"description\":\"It.\"}}},"
                                           "\"stream_body\":true,\"audit\":\"everything.write\"}"),
                                      &upload, NULL, &handle, error)) != CM_OK)
    return status;
  if ((status = http_table->route_add(host,
                                      TEXT("{\"method\":\"WEBSOCKET\",\"path\":\"/api/v1/everything/socket\","
                                           "\"right\":\"everything.read\",\"operation\":{\"summary\":\"Echo.\",\"responses\":{\"200\":{\"description\":\"It.\"}}}}"),
                                      &socket_route, NULL, &handle, error)) != CM_OK)
    return status;
  if ((status = metrics_table->define(host, CM_METRIC_COUNTER, TEXT("ticks"), TEXT("Ticks."), &calls, error)) != CM_OK)
    return status;
  return jobs_table->kind_add(host,
                              TEXT("{\"name\":\"everything.run\",\"summary\":\"Runs.\",\"guarantee\":\"at-most-once\"}"),
                              &job, NULL, &handle, error);
}

static cm_status start(void *context, cm_error *error) {
  cm_status status;
  cm_handle handle;
  uint8_t digest[32];
  (void)context;
  if ((status = events_table->subscribe(host, TEXT("client.*"), &events, NULL, &handle, error)) != CM_OK) return status;
  if ((status = audit_table->sink(host, &sink, NULL, &handle, error)) != CM_OK) return status;
  if ((status = services_table->watch(host, TEXT("com.example.other/1"), &watch, NULL, &handle, error)) != CM_OK) return status;
  if ((status = executor_table->timer(host, 1000, 0, tick, destroy, NULL, &handle)) != CM_OK) return status;
  if ((status = executor_table->post(host, tick, destroy, NULL)) != CM_OK) return status;
  if ((status = crypto_table->sha256(host, (cm_bytes){(const uint8_t *)"abc", 3}, digest)) != CM_OK) return status;
  log_table->write(host, CM_LOG_INFO, TEXT("everything.started"), TEXT("{\"interfaces\":14}"));
  return CM_OK;
}

static cm_status quiesce(void *context, cm_error *error) { (void)context, (void)error; return CM_OK; }

static void stop(void *context) {
  (void)context;
  CM_STOPPED(stopped);
}

static const cm_plugin plugin = {
    CM_HEAD(cm_plugin, 1), NULL, CM_PLUGIN_ID, CM_PLUGIN_VERSION, load, start, quiesce, quiesce, stop,
};

CM_EXPORT const cm_plugin *cm_plugin_entry(uint32_t host_abi_major, uint32_t host_abi_minor) {
  (void)host_abi_minor;
  return host_abi_major == CM_ABI_MAJOR ? &plugin : NULL;
}
