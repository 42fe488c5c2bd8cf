/* A plugin that keeps things in the cloud by another one's service: what is put to /api/v1/archive/{name} becomes the object
 * "archive/NAME" of the remote "archive", and comes back from there. It knows nothing of S3, WebDAV or credentials.
 *
 * The service answers later, on a thread of its own; a request can be answered from every thread, so that is done right there. */
#include "object_store.h"

#include <string.h>
#include <time.h>

#define TEXT(literal) ((cm_text){(literal), sizeof(literal) - 1})

static cm_host_context *host;
static const cm_http *http;
static const cm_services *services;
static cm_lease lease;
static cm_handle watch;
/* Requests whose answer is still with the store: the lease stays until there is none. */
static uint32_t pending;

/* Waits for the answers that are under way: the lease must not go before them. They come on other threads. */
static void settle(void) {
  struct timespec moment = {0, 5 * 1000 * 1000};
  for (int turn = 0; turn < 4000 && __atomic_load_n(&pending, __ATOMIC_ACQUIRE); turn++) nanosleep(&moment, NULL);
}

static void give_back(void) {
  if (lease.handle == CM_NO_HANDLE) return;
  settle();
  cm_handle handle = lease.handle;
  memset(&lease, 0, sizeof lease);
  services->release(host, handle);
}

static void recalled(void *context, cm_handle handle) {
  (void)context;
  if (handle == lease.handle) give_back();
}

static const cm_lease_callbacks lease_callbacks = {CM_HEAD(cm_lease_callbacks, 1), recalled, NULL};

static void changed(void *context, cm_text service, uint32_t available) {
  (void)context, (void)service;
  if (!available || lease.handle != CM_NO_HANDLE) return;
  lease.head = (cm_head)CM_HEAD(cm_lease, 1);
  if (services->acquire(host, TEXT(CM_OBJECT_STORE), (uint32_t)sizeof(cm_object_store), &lease_callbacks, NULL, &lease, NULL))
    memset(&lease, 0, sizeof lease);
}

static const cm_service_callbacks service_callbacks = {CM_HEAD(cm_service_callbacks, 1), changed, NULL};

/* On a thread of the cloud plugin. The context is the request's handle. */
static void done(void *context, const cm_object_result *result) {
  cm_handle request = (cm_handle)(uintptr_t)context;
  if (result->status != CM_OK)
    http->respond_problem(host, request, result->http_status, result->code, result->text);
  else if (result->content.size)
    http->respond(host, request, 200, TEXT("content-type: application/octet-stream"), result->content);
  else
    http->respond(host, request, 200, TEXT("content-type: application/json"),
                  (cm_bytes){(const uint8_t *)result->json.data, result->json.size});
  __atomic_fetch_sub(&pending, 1, __ATOMIC_RELEASE);
}

/* "archive/" and the route's {name}. */
static cm_status key_of(cm_handle request, char *key, cm_text *text) {
  cm_buffer name = {(uint8_t *)key + 8, 200, 0};
  memcpy(key, "archive/", 8);
  cm_status status = http->request_get(host, request, CM_REQUEST_PARAMETER, TEXT("name"), &name);
  *text = (cm_text){key, 8 + name.size};
  return status;
}

static void act(cm_handle request, cm_bytes body, int writes) {
  char key[256];
  cm_text text;
  const cm_object_store *store = lease.table;
  cm_status status = key_of(request, key, &text);
  if (status == CM_OK && !CM_LEASE_VALID(&lease)) status = CM_E_GONE;
  if (status == CM_OK) {
    void *context = (void *)(uintptr_t)request;
    __atomic_fetch_add(&pending, 1, __ATOMIC_ACQUIRE);
    status = writes ? store->put(lease.context, TEXT("archive"), text, TEXT("application/octet-stream"), body, done, context)
                    : store->get(lease.context, TEXT("archive"), text, 0, 8 << 20, done, context);
    if (status != CM_OK) __atomic_fetch_sub(&pending, 1, __ATOMIC_RELEASE);
  }
  if (status == CM_E_GONE)
    http->respond_problem(host, request, 503, TEXT("unavailable"), TEXT("the object store is away for the moment"));
  else if (status == CM_E_BUSY)
    http->respond_problem(host, request, 503, TEXT("busy"), TEXT("too much waits for the object store"));
  else if (status != CM_OK)
    http->respond_problem(host, request, 400, TEXT("invalid"), TEXT("the name may have 200 bytes, the content 8 MiB"));
}

static void on_put(void *context, cm_handle request, cm_bytes body) {
  (void)context;
  act(request, body, 1);
}

static void on_get(void *context, cm_handle request, cm_bytes body) {
  (void)context;
  act(request, body, 0);
}

static const cm_route_callbacks put_route = {CM_HEAD(cm_route_callbacks, 1), on_put, NULL, NULL, NULL, NULL};
static const cm_route_callbacks get_route = {CM_HEAD(cm_route_callbacks, 1), on_get, NULL, NULL, NULL, NULL};

static cm_status load(void *context, const cm_host *core, cm_error *error) {
  (void)context;
  const void *http_table = NULL, *services_table = NULL;
  cm_status status;
  cm_handle handle;
  if (!CM_HAS(core, interface_get)) return CM_E_UNSUPPORTED;
  host = core->context;
  if ((status = core->interface_get(host, TEXT(CM_INTERFACE_HTTP), sizeof(cm_http), &http_table, error))) return status;
  if ((status = core->interface_get(host, TEXT(CM_INTERFACE_SERVICES), sizeof(cm_services), &services_table, error)))
    return status;
  http = http_table, services = services_table;
  if ((status = http->route_add(host,
                                TEXT("{\"method\":\"PUT\",\"path\":\"/api/v1/archive/{name}\",\"right\":\"archive.write\","
                                     "\"body_limit\":8388608,\"operation\":{\"summary\":\"Keeps something in the cloud.\","
                                     "\"responses\":{\"200\":{\"description\":\"What was stored.\"}}}}"),
                                &put_route, NULL, &handle, error)))
    return status;
  return http->route_add(host,
                         TEXT("{\"method\":\"GET\",\"path\":\"/api/v1/archive/{name}\",\"right\":\"archive.read\","
                              "\"operation\":{\"summary\":\"Brings it back.\",\"responses\":{\"200\":{\"description\":"
                              "\"The content.\"}}}}"),
                         &get_route, NULL, &handle, error);
}

static cm_status start(void *context, cm_error *error) {
  (void)context;
  return services->watch(host, TEXT(CM_OBJECT_STORE), &service_callbacks, NULL, &watch, error);
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
