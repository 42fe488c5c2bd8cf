/* The service client-manager.secret/1: other plugins read secrets that an operator has shared with plugins.
 *
 * A user names it in its note ("requires" or "wants") and acquires it as any service. */
#ifndef CLIENT_MANAGER_SECRET_H
#define CLIENT_MANAGER_SECRET_H

#include "client_manager_plugin.h"

#define CM_SERVICE_SECRET "client-manager.secret/1"

typedef struct cm_secret_service {
  cm_head head;
  /* [wait] The value of a secret that is shared with plugins: `version` 0 is the current one. `found` (may be NULL) gets the
   * version's number. The read is in the audit trail ("secrets.service-read") before the value is given. CM_E_NOT_FOUND: there is
   * no such secret or version, or it is not shared. CM_E_TOO_SMALL: `value->size` is what is needed; no record was written. */
  cm_status (*CM_NULLABLE get)(void *CM_NULLABLE context, cm_text name, uint64_t version, cm_buffer *CM_NONNULL value,
                               uint64_t *CM_NULLABLE found);
  /* [any] The current version's number; it grows when the value changes, so that a user can look whether to read again. */
  cm_status (*CM_NULLABLE version)(void *CM_NULLABLE context, cm_text name, uint64_t *CM_NONNULL version);
} cm_secret_service;

#endif
