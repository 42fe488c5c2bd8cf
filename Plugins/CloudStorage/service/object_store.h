/* object_store.h: the service "client-manager.object-store/1" of the cloud plugin: objects in the remotes that an operator has
 * opened for plugins ("services": true). This header and the plugin kit are all that a user needs.
 *
 * No function waits for a store. Each takes a copy of what it needs and answers at once whether the work was accepted; the result
 * comes later to `done`, once, on a thread of the cloud plugin: return soon from there, and go on by `cm.executor/1` `post`.
 * Give the lease back only when every `done` has come. Functions may be called from every thread, also inline. */
#ifndef CLIENT_MANAGER_OBJECT_STORE_H
#define CLIENT_MANAGER_OBJECT_STORE_H

#include "client_manager_plugin.h"

#define CM_OBJECT_STORE "client-manager.object-store/1"

/* Borrowed for the length of `done`. */
typedef struct cm_object_result {
  cm_head head;
  cm_status status; /* CM_OK, CM_E_NOT_FOUND, CM_E_DENIED, CM_E_EXISTS, CM_E_TOO_LARGE, CM_E_UNAVAILABLE, … */
  uint32_t http_status;
  cm_text code;     /* of a failure: "cloud-not-found", see the plugin's page */
  cm_text text;     /* of a failure: for people, with the store's own code and request id */
  cm_text json;     /* what the API answers for the same act: the object, the page, what was stored; may be empty */
  cm_bytes content; /* of `get` */
} cm_object_result;

typedef void (*cm_object_done)(void *CM_NULLABLE context, const cm_object_result *CM_NONNULL result);

/* Every function answers CM_OK: accepted, `done` follows; else `done` is not called: CM_E_BUSY (too much waits), CM_E_INVALID,
 * CM_E_TOO_LARGE, CM_E_GONE (the plugin has stopped). */
typedef struct cm_object_store {
  cm_head head;
  /* [any] Writes up to 8 MiB, compared with the store's hash. `content_type` may be empty. */
  cm_status (*CM_NULLABLE put)(void *CM_NULLABLE store, cm_text remote, cm_text key, cm_text content_type, cm_bytes content,
                               cm_object_done CM_NULLABLE done, void *CM_NULLABLE context);
  /* [any] Reads up to `limit` bytes (8 MiB) from `offset`; past the end the content is empty. */
  cm_status (*CM_NULLABLE get)(void *CM_NULLABLE store, cm_text remote, cm_text key, uint64_t offset, uint64_t limit,
                               cm_object_done CM_NULLABLE done, void *CM_NULLABLE context);
  /* [any] What the store says of an object. */
  cm_status (*CM_NULLABLE stat)(void *CM_NULLABLE store, cm_text remote, cm_text key, cm_object_done CM_NULLABLE done,
                                void *CM_NULLABLE context);
  /* [any] A page of keys that begin with `prefix`: {"items": […], "next": …}; `cursor` is a `next` or empty; `limit` 1 to 1,000. */
  cm_status (*CM_NULLABLE list)(void *CM_NULLABLE store, cm_text remote, cm_text prefix, cm_text cursor, uint32_t limit,
                                cm_object_done CM_NULLABLE done, void *CM_NULLABLE context);
  /* [any] Removes an object; one that is not there is gone as well. */
  cm_status (*CM_NULLABLE remove)(void *CM_NULLABLE store, cm_text remote, cm_text key, cm_object_done CM_NULLABLE done,
                                  void *CM_NULLABLE context);

  /* An object that is written as it comes into being, of any size: */
  /* [any] Begins it; `writer` gets its name. `done` hears of the end of it, whether it came by `writer_end` or by a failure.
   * At most 64 at a time. */
  cm_status (*CM_NULLABLE writer_begin)(void *CM_NULLABLE store, cm_text remote, cm_text key, cm_text content_type,
                                        uint64_t *CM_NONNULL writer, cm_object_done CM_NULLABLE done, void *CM_NULLABLE context);
  /* [any] The next piece, up to 1 MiB. CM_E_BUSY: 4 MiB wait for the store; not taken, try again a little later. CM_E_GONE: it has
   * ended; `done` says why. */
  cm_status (*CM_NULLABLE writer_write)(void *CM_NULLABLE store, uint64_t writer, cm_bytes piece);
  /* [any] That was all: the object is there when `done` says so, and not before. */
  cm_status (*CM_NULLABLE writer_end)(void *CM_NULLABLE store, uint64_t writer);
  /* [any] Nothing of it is kept. */
  cm_status (*CM_NULLABLE writer_abort)(void *CM_NULLABLE store, uint64_t writer);
} cm_object_store;

CM_STATIC_ASSERT(sizeof(cm_object_result) == 80 && sizeof(cm_object_store) == 80, "layout");

#endif
