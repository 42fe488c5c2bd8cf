/* A stranger's plugin that reads secrets by the service client-manager.secret/1: GET /api/v1/secret-user/read?how=NAME:VERSION answers what
 * it got, so that the proof can compare. */
#define _GNU_SOURCE
#include <stdlib.h>
#define ID "com.guests.secret-user"
#define AREA "secret-user"
#define CAPABILITIES ""
#define MORE ",\"requires\":[\"client-manager.secret/1\"]"
#include "guest.h"
#include "client_manager_secret.h"

static cm_lease lease;

static void use(void *context, cm_handle request, cm_bytes body) {
  (void)context, (void)body;
  uint8_t name[80] = {0}, value[4096];
  char line[128];
  cm_buffer name_room = {name, sizeof name - 1, 0};
  cm_buffer room = {value, sizeof value, 0}, none = {NULL, 0, 0};
  http->request_get(host->context, request, CM_REQUEST_QUERY, text("how"), &name_room);
  char *colon = strchr((char *)name, ':');
  uint64_t version = colon ? strtoull(colon + 1, NULL, 10) : 0;
  uint64_t found = 0, current = 0;
  cm_status status = CM_E_GONE;
  const cm_secret_service *service = lease.table;
  cm_text wanted = {(const char *)name, colon ? (uint64_t)(colon - (char *)name) : name_room.size};
  if (CM_LEASE_VALID(&lease) && CM_HAS(service, get) && CM_HAS(service, version)) {
    /* First without room: it says how much is needed, and nothing is recorded. */
    status = service->get(lease.context, wanted, version, &none, NULL);
    if (status == CM_E_TOO_SMALL) status = service->get(lease.context, wanted, version, &room, &found);
    if (status == CM_OK && none.size != room.size) status = CM_E_INTERNAL;
    if (status == CM_OK) service->version(lease.context, wanted, &current);
  }
  if (status != CM_OK) {
    snprintf(line, sizeof line, "{\"status\":%d}", status);
    answer(request, line);
    return;
  }
  snprintf(line, sizeof line, "content-type: application/octet-stream\nx-version: %llu\nx-current: %llu", (unsigned long long)found, (unsigned long long)current);
  http->respond(host->context, request, 200, text(line), (cm_bytes){value, room.size});
}
static const cm_route_callbacks use_callbacks = {CM_HEAD(cm_route_callbacks, 1), use, NULL, NULL, NULL, NULL};

static void recalled(void *context, cm_handle handle) {
  (void)context;
  services->release(host->context, handle);
  memset(&lease, 0, sizeof lease);
}
static const cm_lease_callbacks lease_callbacks = {CM_HEAD(cm_lease_callbacks, 1), recalled, NULL};

static cm_status load(void *context, const cm_host *given, cm_error *error) {
  (void)context;
  take_interfaces(given);
  return route("read", "", &use_callbacks, error);
}

static cm_status start(void *context, cm_error *error) {
  (void)context;
  lease.head = (cm_head)CM_HEAD(cm_lease, 1);
  return services->acquire(host->context, text(CM_SERVICE_SECRET), sizeof(cm_secret_service), &lease_callbacks, NULL, &lease, error);
}

static void stop(void *context) {
  (void)context;
  if (lease.handle) services->release(host->context, lease.handle);
  memset(&lease, 0, sizeof lease);
}

static const cm_plugin plugin = {CM_HEAD(cm_plugin, 1), NULL, ID, VERSION, load, start, NULL, NULL, stop};

CM_EXPORT const cm_plugin *cm_plugin_entry(uint32_t major, uint32_t minor) {
  (void)minor;
  return major == CM_ABI_MAJOR ? &plugin : NULL;
}
