/* The service com.example.helloswift/1, for plugins that use it. */
#ifndef HELLOSWIFT_H
#define HELLOSWIFT_H

#include "client_manager_plugin.h"

#define HELLOSWIFT_SERVICE "com.example.helloswift/1"

typedef struct helloswift_service {
  cm_head head;
  /* [any] Greets `name`: "Hello, Ada!". CM_E_TOO_SMALL: `greeting->size` is what is needed. */
  cm_status (*CM_NULLABLE greet)(void *CM_NULLABLE context, cm_text name, cm_buffer *CM_NONNULL greeting);
} helloswift_service;

#endif
