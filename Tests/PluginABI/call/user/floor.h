#include "client_manager_plugin.h"
extern uint32_t floor_stopped;
cm_status floor_add(void *context, int64_t value, int64_t *total);
