/* cm.store/1: keys, transactions, expectations, blobs, their bounds. The bound of bytes is set to 3 MiB by the test. */
#define ID "com.example.store"
#define VERSION "1.0.0"
#define AREA "teststore"
#include "check.h"
#include <time.h>
NOTE("[\"http\",\"store\"]");

static const cm_store *store;
static cm_handle leaked;
static FILE *after;

static void put(const char *key, const char *value) {
  cm_handle transaction;
  GIVES(CM_OK, store->begin(H, &transaction));
  GIVES(CM_OK, store->put(H, transaction, T(key), B(value)));
  GIVES(CM_OK, store->commit(H, transaction, &error));
}

static void keys(void) {
  char bytes[4096], long_key[600];
  cm_buffer room = ROOM(bytes), none = NO_ROOM;
  cm_handle transaction;
  GIVES(CM_E_NOT_FOUND, store->get(H, T("a"), &room, &error));
  CODE("not-found");
  put("a", "one");
  GIVES(CM_E_TOO_SMALL, store->get(H, T("a"), &none, &error));
  HOLDS(none.size == 3);
  GIVES(CM_OK, store->get(H, T("a"), &room, &error));
  HOLDS(same(&room, "one"));
  put("a", "");
  GIVES(CM_OK, store->get(H, T("a"), &room, &error));
  HOLDS(room.size == 0);

  /* Nothing is there before the commit; the order of changes counts. */
  GIVES(CM_OK, store->begin(H, &transaction));
  GIVES(CM_OK, store->put(H, transaction, T("b"), B("1")));
  GIVES(CM_OK, store->put(H, transaction, T("b"), B("2")));
  GIVES(CM_OK, store->put(H, transaction, T("c"), B("3")));
  GIVES(CM_OK, store->remove(H, transaction, T("c")));
  GIVES(CM_E_NOT_FOUND, store->get(H, T("b"), &room, &error));
  GIVES(CM_OK, store->commit(H, transaction, &error));
  GIVES(CM_OK, store->get(H, T("b"), &room, &error));
  HOLDS(same(&room, "2"));
  GIVES(CM_E_NOT_FOUND, store->get(H, T("c"), &room, &error));
  GIVES(CM_E_GONE, store->commit(H, transaction, &error));
  GIVES(CM_E_GONE, store->put(H, transaction, T("b"), B("4")));
  GIVES(CM_E_GONE, store->discard(H, transaction));

  GIVES(CM_OK, store->begin(H, &transaction));
  GIVES(CM_OK, store->remove(H, transaction, T("b")));
  GIVES(CM_OK, store->discard(H, transaction));
  GIVES(CM_OK, store->get(H, T("b"), &room, &error));

  /* Expectations: all or nothing. */
  GIVES(CM_OK, store->begin(H, &transaction));
  GIVES(CM_OK, store->expect(H, transaction, T("b"), 1, B("2")));
  GIVES(CM_OK, store->expect(H, transaction, T("never"), 0, B("")));
  GIVES(CM_OK, store->put(H, transaction, T("b"), B("5")));
  GIVES(CM_OK, store->commit(H, transaction, &error));
  GIVES(CM_OK, store->begin(H, &transaction));
  GIVES(CM_OK, store->put(H, transaction, T("d"), B("no")));
  GIVES(CM_OK, store->expect(H, transaction, T("b"), 1, B("2")));
  GIVES(CM_E_EXISTS, store->commit(H, transaction, &error));
  CODE("plugin-store-changed");
  GIVES(CM_E_NOT_FOUND, store->get(H, T("d"), &room, &error));

  /* Lists: by bytes, in pages. */
  put("p/1", "x");
  put("p/2", "x");
  put("p/3", "x");
  put("q", "x");
  GIVES(CM_OK, store->list(H, T("p/"), T(""), 2, &room, &error));
  HOLDS(same(&room, "{\"items\":[\"p/1\",\"p/2\"],\"next\":\"p/2\"}"));
  GIVES(CM_OK, store->list(H, T("p/"), T("p/2"), 2, &room, &error));
  HOLDS(same(&room, "{\"items\":[\"p/3\"],\"next\":null}"));
  GIVES(CM_E_TOO_SMALL, store->list(H, T("p/"), T(""), 2, &none, &error));
  GIVES(CM_E_INVALID, store->list(H, T(""), T(""), 1001, &room, &error));
  GIVES(CM_E_INVALID, store->list(H, T(""), T(""), 0, &room, &error));

  /* Keys of the wrong form. */
  memset(long_key, 'k', sizeof(long_key));
  GIVES(CM_OK, store->begin(H, &transaction));
  GIVES(CM_E_INVALID, store->put(H, transaction, T(""), B("x")));
  GIVES(CM_E_INVALID, store->put(H, transaction, (cm_text){ long_key, 513 }, B("x")));
  GIVES(CM_OK, store->put(H, transaction, (cm_text){ long_key, 512 }, B("x")));
  GIVES(CM_E_INVALID, store->put(H, transaction, (cm_text){ "\xff", 1 }, B("x")));
  GIVES(CM_E_INVALID, store->expect(H, transaction, T("b"), 2, B("x")));
  GIVES(CM_OK, store->discard(H, transaction));
}

static void bounds(void) {
  static uint8_t big[1 << 20];
  char name[16];
  cm_handle transaction, many[80];
  GIVES(CM_OK, store->begin(H, &transaction));
  GIVES(CM_E_TOO_LARGE, store->put(H, transaction, T("big"), (cm_bytes){ big, sizeof(big) + 1 }));
  GIVES(CM_OK, store->put(H, transaction, T("big1"), (cm_bytes){ big, sizeof(big) }));
  GIVES(CM_OK, store->put(H, transaction, T("big2"), (cm_bytes){ big, sizeof(big) }));
  GIVES(CM_OK, store->put(H, transaction, T("big3"), (cm_bytes){ big, sizeof(big) }));
  /* 4 MiB in one transaction, keys counted. */
  GIVES(CM_E_TOO_LARGE, store->put(H, transaction, T("big4"), (cm_bytes){ big, sizeof(big) }));
  /* Of the 3 MiB that the plugin may keep, some is taken. */
  GIVES(CM_E_UNAVAILABLE, store->commit(H, transaction, &error));
  CODE("plugin-store-full");
  put("big1", "small");
  GIVES(CM_OK, store->begin(H, &transaction));
  cm_status status = CM_OK;
  int count = 0;
  for (; count < 5000 && status == CM_OK; count++) {
    snprintf(name, sizeof(name), "m%d", count);
    status = store->put(H, transaction, T(name), B("x"));
  }
  HOLDS(status == CM_E_TOO_LARGE && count == 4097);
  GIVES(CM_OK, store->commit(H, transaction, &error));
  int open = 0;
  while (open < 80 && store->begin(H, &many[open]) == CM_OK) open++;
  HOLDS(open == 63); /* and the one of `start` */
  while (open > 0) GIVES(CM_OK, store->discard(H, many[--open]));
}

static void blobs(void) {
  static uint8_t piece[2 << 20];
  uint64_t size = 0;
  char bytes[64];
  cm_buffer room = ROOM(bytes), two = { (uint8_t *)bytes, 2, 0 };
  GIVES(CM_E_NOT_FOUND, store->blob_size(H, T("log/../1"), &size));
  GIVES(CM_E_NOT_FOUND, store->blob_read(H, T("log/../1"), 0, &room, &error));
  GIVES(CM_E_NOT_FOUND, store->blob_sync(H, T("log/../1"), &error));
  GIVES(CM_E_NOT_FOUND, store->blob_remove(H, T("log/../1"), &error));
  GIVES(CM_OK, store->blob_append(H, T("log/../1"), B("hello "), &size, &error));
  HOLDS(size == 6);
  GIVES(CM_OK, store->blob_append(H, T("log/../1"), B("world"), NULL, &error));
  GIVES(CM_OK, store->blob_sync(H, T("log/../1"), &error));
  GIVES(CM_OK, store->blob_size(H, T("log/../1"), &size));
  HOLDS(size == 11);
  GIVES(CM_OK, store->blob_read(H, T("log/../1"), 6, &room, &error));
  HOLDS(same(&room, "world"));
  GIVES(CM_OK, store->blob_read(H, T("log/../1"), 0, &two, &error));
  HOLDS(same(&two, "he"));
  GIVES(CM_OK, store->blob_read(H, T("log/../1"), 11, &room, &error));
  HOLDS(room.size == 0);
  GIVES(CM_OK, store->blob_append(H, T("big"), (cm_bytes){ piece, sizeof(piece) }, &size, &error));
  GIVES(CM_E_UNAVAILABLE, store->blob_append(H, T("big"), (cm_bytes){ piece, sizeof(piece) }, &size, &error));
  CODE("plugin-store-full");
  GIVES(CM_E_TOO_LARGE, store->blob_append(H, T("big"), (cm_bytes){ piece, 9u << 20 }, &size, &error));
  GIVES(CM_OK, store->blob_size(H, T("big"), &size));
  HOLDS(size == sizeof(piece));
  GIVES(CM_OK, store->blob_remove(H, T("big"), &error));
  GIVES(CM_E_NOT_FOUND, store->blob_remove(H, T("big"), &error));
  GIVES(CM_E_INVALID, store->blob_append(H, T(""), B("x"), NULL, &error));
}

/* After a restart of the core. */
static void kept(void) {
  char bytes[64];
  cm_buffer room = ROOM(bytes);
  uint64_t size = 0;
  GIVES(CM_OK, store->get(H, T("b"), &room, &error));
  HOLDS(same(&room, "5"));
  GIVES(CM_OK, store->blob_size(H, T("log/../1"), &size));
  HOLDS(size == 11);
}

static void *from_elsewhere(void *context) {
  (void)context;
  put("elsewhere", "yes");
  return NULL;
}

static int check(cm_handle request, const char *step) {
  (void)request;
  if (strcmp(step, "keys") == 0) keys();
  else if (strcmp(step, "bounds") == 0) bounds();
  else if (strcmp(step, "blobs") == 0) blobs();
  else if (strcmp(step, "kept") == 0) kept();
  else if (strcmp(step, "threads") == 0) elsewhere(from_elsewhere, NULL);
  else HOLDS(!"a known step");
  return 1;
}

static cm_status on_load(void) {
  store = (const cm_store *)interface(CM_INTERFACE_STORE, CM_OK);
  return store ? CM_OK : CM_E_UNSUPPORTED;
}

static cm_status on_start(void) { return store->begin(H, &leaked) == CM_OK ? CM_OK : CM_E_INTERNAL; }

/* What the core answers after `stop` is written where the test looks. */
static void *late(void *context) {
  cm_handle transaction = 0;
  char bytes[8];
  cm_buffer room = ROOM(bytes);
  (void)context;
  cm_status status = CM_OK;
  for (int i = 0; i < 2000 && status != CM_E_GONE; i++) {
    status = store->get(H, T("b"), &room, NULL);
    struct timespec pause = { 0, 5000000 };
    nanosleep(&pause, NULL);
  }
  fprintf(after, "%d %d\n", status, store->begin(H, &transaction));
  fclose(after);
  return NULL;
}

static void on_stop(void) {
  const char *path = getenv("CM_TEST_AFTER_STOP");
  pthread_t thread;
  if (!path || !(after = fopen(path, "w"))) return;
  if (pthread_create(&thread, NULL, late, NULL) == 0) pthread_detach(thread);
}
