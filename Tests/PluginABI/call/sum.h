/* The service whose calls Tests/Show/plugins-3-call-cost measures. */
#ifndef SUM_H
#define SUM_H
#include "client_manager_plugin.h"
#define SUM_SERVICE "com.example.sum/1"
typedef struct sum_service {
  cm_head head;
  /* [any] */
  cm_status (*add)(void *context, int64_t value, int64_t *total);
  /* [any] Where the publisher's own table lies: whoever holds the same address calls without anything in between. */
  cm_status (*where)(void *context, const void **table);
} sum_service;
#endif
