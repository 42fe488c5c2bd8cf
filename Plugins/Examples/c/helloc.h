/* The service com.example.helloc/1, for plugins that use it. */
#ifndef HELLOC_H
#define HELLOC_H

#include "client_manager_plugin.h"

#define HELLOC_SERVICE "com.example.helloc/1"

typedef struct helloc_service {
  cm_head head;
  /* [any] Greets `name`: "Hello, Ada!". CM_E_TOO_SMALL: `greeting->size` is what is needed. */
  cm_status (*CM_NULLABLE greet)(void *CM_NULLABLE context, cm_text name, cm_buffer *CM_NONNULL greeting);
} helloc_service;

#endif
