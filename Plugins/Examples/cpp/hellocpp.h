/* The service com.example.hellocpp/1, for plugins that use it. */
#ifndef HELLOCPP_H
#define HELLOCPP_H

#include "client_manager_plugin.h"

#define HELLOCPP_SERVICE "com.example.hellocpp/1"

typedef struct hellocpp_service {
  cm_head head;
  /* [any] Greets `name`: "Hello, Ada!". CM_E_TOO_SMALL: `greeting->size` is what is needed. */
  cm_status (*CM_NULLABLE greet)(void *CM_NULLABLE context, cm_text name, cm_buffer *CM_NONNULL greeting);
} hellocpp_service;

#endif
