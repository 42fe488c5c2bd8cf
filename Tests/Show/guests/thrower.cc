/* A C++ guest that lets an exception out of a callback. */
#define CAPABILITIES ""
#include "guest.h"
#include <stdexcept>

static void bad(void *, cm_handle, cm_bytes) { throw std::runtime_error("the guest throws"); }
static const cm_route_callbacks bad_callbacks = {CM_HEAD(cm_route_callbacks, 1), bad, NULL, NULL, NULL, NULL};

static cm_status load(void *, const cm_host *given, cm_error *error) {
  take_interfaces(given);
  return route("bad", "", &bad_callbacks, error) == CM_OK ? route("ok", "", &ok_callbacks, error) : CM_E_INTERNAL;
}
static cm_status start(void *, cm_error *) { return CM_OK; }
static void stop(void *) {}
static const cm_plugin plugin = {CM_HEAD(cm_plugin, 1), NULL, ID, VERSION, load, start, NULL, NULL, stop};
extern "C" const cm_plugin *cm_plugin_entry(uint32_t major, uint32_t) { return major == CM_ABI_MAJOR ? &plugin : NULL; }
