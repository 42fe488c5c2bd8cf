/* The floor: the same work in another object file, called directly. */
#include "floor.h"
uint32_t floor_stopped;
cm_status floor_add(void *context, int64_t value, int64_t *total) {
  (void)context;
  CM_GUARD(floor_stopped);
  *total += value;
  return CM_OK;
}
