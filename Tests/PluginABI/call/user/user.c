/* GET /api/v1/sumuser measures, on the plugin's own thread inside the running core, what one call costs: directly into
 * another object, through the service's table, and through it with the lease looked at before each call. Interleaved;
 * the least of each counts, because whatever else the machine does only adds to it. */
#include "../sum.h"
#include "floor.h"

#include <malloc.h>
#include <stdio.h>
#include <time.h>
#include <string.h>
#define TEXT(literal) ((cm_text){(literal), sizeof(literal) - 1})
#define CALLS 2000000
#define ROUNDS 25

static cm_host_context *host;
static const cm_http *http;
static const cm_services *services;
static cm_lease lease;

static double nanoseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static double direct(int64_t *total) {
  double begin = nanoseconds();
  for (int64_t i = 0; i < CALLS; i++) if (floor_add(NULL, i, total) != CM_OK) return 1e9;
  return (nanoseconds() - begin) / CALLS;
}

static double table(int64_t *total) {
  const sum_service *service = lease.table;
  cm_status (*add)(void *, int64_t, int64_t *) = service->add;
  void *context = lease.context;
  double begin = nanoseconds();
  for (int64_t i = 0; i < CALLS; i++) if (add(context, i, total) != CM_OK) return 1e9;
  return (nanoseconds() - begin) / CALLS;
}

static double looked_at(int64_t *total) {
  const sum_service *service = lease.table;
  double begin = nanoseconds();
  for (int64_t i = 0; i < CALLS; i++)
    if (!CM_LEASE_VALID(&lease) || service->add(lease.context, i, total) != CM_OK) return 1e9;
  return (nanoseconds() - begin) / CALLS;
}

static double least(double a, double b) { return a < b ? a : b; }

static void request(void *context, cm_handle request, cm_bytes body) {
  (void)context, (void)body;
  double best[3] = {1e9, 1e9, 1e9};
  int64_t sums[3] = {0, 0, 0};
  const void *own = NULL;
  struct mallinfo2 before, after;
  ((const sum_service *)lease.table)->where(lease.context, &own);
  before = mallinfo2();
  for (int round = 0; round < ROUNDS; round++) {
    best[0] = least(best[0], direct(&sums[0]));
    best[1] = least(best[1], table(&sums[1]));
    best[2] = least(best[2], looked_at(&sums[2]));
  }
  after = mallinfo2();
  char text[400];
  int size = snprintf(text, sizeof text,
                      "{\"direct_ns\":%.4f,\"table_ns\":%.4f,\"lease_ns\":%.4f,\"calls\":%ld,\"sums_equal\":%s,"
                      "\"same_table\":%s,\"heap_bytes\":%lld}",
                      best[0], best[1], best[2], (long)CALLS * ROUNDS * 3,
                      sums[0] == sums[1] && sums[1] == sums[2] ? "true" : "false", own == lease.table ? "true" : "false",
                      (long long)after.uordblks - (long long)before.uordblks);
  http->respond(host, request, 200, TEXT("content-type: application/json"), (cm_bytes){(const uint8_t *)text, (uint64_t)size});
}
static const cm_route_callbacks route = {CM_HEAD(cm_route_callbacks, 1), request, NULL, NULL, NULL, NULL};

static void recalled(void *context, cm_handle handle) { (void)context; services->release(host, handle); }
static const cm_lease_callbacks lease_callbacks = {CM_HEAD(cm_lease_callbacks, 1), recalled, NULL};

static cm_status load(void *context, const cm_host *core, cm_error *error) {
  const void *found = NULL, *second = NULL;
  cm_status status;
  cm_handle handle;
  (void)context;
  host = core->context;
  if ((status = core->interface_get(host, TEXT(CM_INTERFACE_HTTP), sizeof(cm_http), &found, error))) return status;
  if ((status = core->interface_get(host, TEXT(CM_INTERFACE_SERVICES), sizeof(cm_services), &second, error))) return status;
  http = found, services = second;
  return http->route_add(host,
                         TEXT("{\"method\":\"GET\",\"path\":\"/api/v1/sumuser\",\"right\":\"sumuser.read\","
                              "\"operation\":{\"summary\":\"Measures a call.\",\"responses\":"
                              "{\"200\":{\"description\":\"Nanoseconds.\"}}}}"),
                         &route, NULL, &handle, error);
}
static cm_status start(void *context, cm_error *error) {
  (void)context;
  lease.head = (cm_head)CM_HEAD(cm_lease, 1);
  return services->acquire(host, TEXT(SUM_SERVICE), sizeof(sum_service), &lease_callbacks, NULL, &lease, error);
}
static void stop(void *context) { (void)context; }
static const cm_plugin plugin = {CM_HEAD(cm_plugin, 1), NULL, CM_PLUGIN_ID, CM_PLUGIN_VERSION, load, start, NULL, NULL, stop};
CM_EXPORT const cm_plugin *cm_plugin_entry(uint32_t major, uint32_t minor) {
  (void)minor;
  return major == CM_ABI_MAJOR ? &plugin : NULL;
}
