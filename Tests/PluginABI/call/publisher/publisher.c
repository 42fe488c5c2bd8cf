#include "../sum.h"
#include <string.h>
#define TEXT(literal) ((cm_text){(literal), sizeof(literal) - 1})

static uint32_t stopped;
static cm_status add(void *context, int64_t value, int64_t *total) {
  (void)context;
  CM_GUARD(stopped);
  *total += value;
  return CM_OK;
}
static cm_status where(void *context, const void **table);
static const sum_service service = {CM_HEAD(sum_service, 1), add, where};
static cm_status where(void *context, const void **table) {
  (void)context;
  CM_GUARD(stopped);
  *table = &service;
  return CM_OK;
}
static cm_status load(void *context, const cm_host *core, cm_error *error) {
  const void *found = NULL;
  cm_status status = core->interface_get(core->context, TEXT(CM_INTERFACE_SERVICES), sizeof(cm_services), &found, error);
  (void)context;
  CM_STARTED(stopped);
  if (status != CM_OK) return status;
  return ((const cm_services *)found)->publish(core->context, TEXT(SUM_SERVICE), &service.head, NULL, error);
}
static cm_status start(void *context, cm_error *error) { (void)context, (void)error; return CM_OK; }
static void stop(void *context) { (void)context; CM_STOPPED(stopped); }
static const cm_plugin plugin = {CM_HEAD(cm_plugin, 1), NULL, CM_PLUGIN_ID, CM_PLUGIN_VERSION, load, start, NULL, NULL, stop};
CM_EXPORT const cm_plugin *cm_plugin_entry(uint32_t major, uint32_t minor) {
  (void)minor;
  return major == CM_ABI_MAJOR ? &plugin : NULL;
}
