/* A plugin that uses another one's service: GET /api/v1/caller/{name} greets through com.example.helloc/1.
 *
 * The service is acquired in `start`: the note says "requires", so it is there. It is given back when it is recalled, and
 * acquired again when it is back: an upgrade of helloc costs this plugin nothing but that. All of this runs on the
 * plugin's own thread. */
#include "helloc.h"

#include <string.h>

#define TEXT(literal) ((cm_text){(literal), sizeof(literal) - 1})

static cm_host_context *host;
static const cm_http *http;
static const cm_services *services;
static cm_lease lease;
static cm_handle watch;

static void give_back(void) {
  if (lease.handle == CM_NO_HANDLE) return;
  cm_handle handle = lease.handle;
  memset(&lease, 0, sizeof lease);
  services->release(host, handle);
}

static void recalled(void *context, cm_handle handle) {
  (void)context;
  if (handle == lease.handle) give_back();
}

static const cm_lease_callbacks lease_callbacks = {CM_HEAD(cm_lease_callbacks, 1), recalled, NULL};

static cm_status acquire(cm_error *error) {
  if (lease.handle != CM_NO_HANDLE) return CM_OK;
  lease.head = (cm_head)CM_HEAD(cm_lease, 1);
  cm_status status = services->acquire(host, TEXT(HELLOC_SERVICE), (uint32_t)sizeof(helloc_service), &lease_callbacks, NULL,
                                       &lease, error);
  if (status != CM_OK) memset(&lease, 0, sizeof lease);
  return status;
}

static void changed(void *context, cm_text service, uint32_t available) {
  (void)context, (void)service;
  if (available) acquire(NULL);
}

static const cm_service_callbacks service_callbacks = {CM_HEAD(cm_service_callbacks, 1), changed, NULL};

static void request(void *context, cm_handle request, cm_bytes body) {
  (void)context, (void)body;
  uint8_t name[256], answer[512];
  cm_buffer name_room = {name, sizeof name, 0}, answer_room = {answer, sizeof answer, 0};
  cm_status status = http->request_get(host, request, CM_REQUEST_PARAMETER, TEXT("name"), &name_room);
  if (status == CM_OK) {
    const helloc_service *service = lease.table;
    status = CM_LEASE_VALID(&lease) && CM_HAS(service, greet)
                 ? service->greet(lease.context, (cm_text){(const char *)name, name_room.size}, &answer_room)
                 : CM_E_GONE;
  }
  if (status == CM_OK)
    http->respond(host, request, 200, TEXT("content-type: text/plain; charset=utf-8"),
                  (cm_bytes){answer, answer_room.size});
  else if (status == CM_E_GONE)
    http->respond_problem(host, request, 503, TEXT("unavailable"), TEXT("helloc is away for the moment"));
  else
    http->respond_problem(host, request, 400, TEXT("invalid"), TEXT("the name may have 256 bytes"));
}

static const cm_route_callbacks route = {CM_HEAD(cm_route_callbacks, 1), request, NULL, NULL, NULL, NULL};

static cm_status load(void *context, const cm_host *core, cm_error *error) {
  (void)context;
  const void *http_table = NULL, *services_table = NULL;
  cm_status status;
  if (!CM_HAS(core, interface_get)) return CM_E_UNSUPPORTED;
  host = core->context;
  /* All of revision 1 is needed: with less the core refuses here, and no call needs a check. */
  if ((status = core->interface_get(host, TEXT(CM_INTERFACE_HTTP), sizeof(cm_http), &http_table, error))) return status;
  if ((status = core->interface_get(host, TEXT(CM_INTERFACE_SERVICES), sizeof(cm_services), &services_table, error)))
    return status;
  http = http_table, services = services_table;
  cm_handle handle;
  return http->route_add(host,
                         TEXT("{\"method\":\"GET\",\"path\":\"/api/v1/caller/{name}\",\"right\":\"caller.read\","
                              "\"operation\":{\"summary\":\"Greets somebody by another plugin.\",\"responses\":"
                              "{\"200\":{\"description\":\"The greeting.\"}}}}"),
                         &route, NULL, &handle, error);
}

static cm_status start(void *context, cm_error *error) {
  (void)context;
  cm_status status = acquire(error);
  if (status != CM_OK) return status;
  return services->watch(host, TEXT(HELLOC_SERVICE), &service_callbacks, NULL, &watch, error);
}

static void stop(void *context) {
  (void)context;
  give_back();
}

static const cm_plugin plugin = {
    CM_HEAD(cm_plugin, 1), NULL, CM_PLUGIN_ID, CM_PLUGIN_VERSION, load, start, NULL, NULL, stop,
};

CM_EXPORT const cm_plugin *cm_plugin_entry(uint32_t host_abi_major, uint32_t host_abi_minor) {
  (void)host_abi_minor;
  return host_abi_major == CM_ABI_MAJOR ? &plugin : NULL;
}
