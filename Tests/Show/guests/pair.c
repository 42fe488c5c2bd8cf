/* Two guests that share a service: B publishes, A calls. With -DGUEST_B or -DGUEST_A. */
#define CAPABILITIES ""
#ifdef GUEST_B
#define ID "com.guests.b"
#define AREA "guest-b"
#ifdef GUEST_CYCLE
#define MORE ",\"provides\":[\"com.guests.b/1\"],\"requires\":[\"com.guests.a/1\"]"
#else
#define MORE ",\"provides\":[\"com.guests.b/1\"]"
#endif
#else
#define ID "com.guests.a"
#define AREA "guest-a"
#ifdef GUEST_CYCLE
#define MORE ",\"provides\":[\"com.guests.a/1\"],\"requires\":[\"com.guests.b/1\"]"
#elif defined(GUEST_WANTS)
#define MORE ",\"wants\":[\"com.guests.b/1\"]"
#else
#define MORE ",\"requires\":[\"com.guests.b/1\"]"
#endif
#endif
#include "guest.h"

typedef struct service {
  cm_head head;
  cm_status (*work)(void *context, uint32_t how);
} service;

static uint32_t stopped;

static cm_status work(void *context, uint32_t how) {
  (void)context;
  CM_GUARD(stopped);
  if (how == 1) *(volatile int *)16 = 1;
  return CM_OK;
}
static const service table __attribute__((unused)) = {CM_HEAD(service, 1), work};
static cm_lease lease;
static const service *kept;

static void use(void *context, cm_handle request, cm_bytes body) {
  (void)context;
  (void)body;
  char how[8] = "", line[96];
  cm_buffer buffer = {(uint8_t *)how, sizeof how - 1, 0};
  if (http->request_get(host->context, request, CM_REQUEST_QUERY, text("how"), &buffer) == CM_OK) how[buffer.size] = 0;
  cm_status status = CM_E_NOT_FOUND;
  if (kept && strcmp(how, "stale") == 0) status = kept->work(NULL, 0); /* the lease may be gone; the function must answer */
  else if (CM_LEASE_VALID(&lease)) status = ((const service *)lease.table)->work(lease.context, strcmp(how, "fault") == 0);
  snprintf(line, sizeof line, "{\"status\":%d,\"valid\":%d}", status, CM_LEASE_VALID(&lease) ? 1 : 0);
  answer(request, line);
}
static const cm_route_callbacks use_callbacks = {CM_HEAD(cm_route_callbacks, 1), use, NULL, NULL, NULL, NULL};

static void recalled(void *context, cm_handle handle) {
  (void)context;
#ifndef GUEST_KEEPS
  services->release(host->context, handle);
  cm_lease none = {CM_HEAD(cm_lease, 1), 0, NULL, NULL, NULL};
  lease = none;
#else
  (void)handle;
#endif
}
static const cm_lease_callbacks lease_callbacks __attribute__((unused)) = {CM_HEAD(cm_lease_callbacks, 1), recalled, NULL};

static cm_status load(void *context, const cm_host *given, cm_error *error) {
  (void)context;
  take_interfaces(given);
#if defined(GUEST_B) || defined(GUEST_CYCLE)
  cm_status status = services->publish(host->context, text(ID "/1"), &table.head, NULL, error);
  if (status != CM_OK) return status;
#endif
  return route("use", "", &use_callbacks, error) == CM_OK ? route("ok", "", &ok_callbacks, error) : CM_E_INTERNAL;
}

static cm_status start(void *context, cm_error *error) {
  (void)context;
#ifdef GUEST_B
  const char *wanted = "com.guests.a/1";
#else
  const char *wanted = "com.guests.b/1";
#endif
#if defined(GUEST_A) || defined(GUEST_CYCLE)
  cm_lease fresh = {CM_HEAD(cm_lease, 1), 0, NULL, NULL, NULL};
  lease = fresh;
  cm_status status = services->acquire(host->context, text(wanted), sizeof(service), &lease_callbacks, NULL, &lease, error);
  if (status == CM_OK) kept = (const service *)lease.table;
#ifndef GUEST_WANTS
  return status;
#endif
#else
  (void)wanted;
  (void)error;
#endif
  return CM_OK;
}

static void stop(void *context) {
  (void)context;
  CM_STOPPED(stopped);
  if (lease.handle) services->release(host->context, lease.handle);
}

static const cm_plugin plugin = {CM_HEAD(cm_plugin, 1), NULL, ID, VERSION, load, start, NULL, NULL, stop};
const cm_plugin *cm_plugin_entry(uint32_t major, uint32_t minor) {
  (void)minor;
  return major == CM_ABI_MAJOR ? &plugin : NULL;
}
