/* The service client-manager.secret-source/1: a plugin brings secrets from elsewhere (a vault, files, a cloud).
 *
 * Whoever publishes it is asked by the secrets-sync plugin for each secret that was made with a reference instead of a value, in
 * the interval that was given for it. What it gives becomes a new version when it differs from the current one. */
#ifndef CLIENT_MANAGER_SECRET_SOURCE_H
#define CLIENT_MANAGER_SECRET_SOURCE_H

#include "client_manager_plugin.h"

#define CM_SERVICE_SECRET_SOURCE "client-manager.secret-source/1"

typedef struct cm_secret_source {
  cm_head head;
  /* Called on a worker thread of the user's, one call at a time; it may wait for a network, at most 20 s. `reference` is what the
   * operator wrote, 1 to 256 bytes. CM_E_NOT_FOUND: there is nothing under it. CM_E_TOO_SMALL: `value->size` is what is
   * needed; more than 64 KiB is not taken. The source keeps no copy in logs or messages. */
  cm_status (*CM_NULLABLE fetch)(void *CM_NULLABLE context, cm_text reference, cm_buffer *CM_NONNULL value,
                                 cm_error *CM_NULLABLE error);
} cm_secret_source;

#endif
