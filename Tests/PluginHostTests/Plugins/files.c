/* cm.files/1: a file from its first byte to its removal, and on its way to a client and back; bounds and refusals; in the
 * plugin's own name and in that of whoever asks. */
#define ID "com.example.keeper"
#ifndef VERSION
#define VERSION "1.0.0"
#endif
#define AREA "testfiles"
#include "check.h"
NOTE("[\"http\",\"files\"]");

static const cm_files *files;
static char id[27], kept[27];
static uint8_t piece[70000];
/* SHA-256 of "hello". */
static const uint8_t hello[32] = {
  0x2c, 0xf2, 0x4d, 0xba, 0x5f, 0xb0, 0xa3, 0x0e, 0x26, 0xe8, 0x3b, 0x2a, 0xc5, 0xb9, 0xe2, 0x9e,
  0x1b, 0x16, 0x1e, 0x5c, 0x1f, 0xa7, 0x42, 0x5e, 0x73, 0x04, 0x33, 0x62, 0x93, 0x8b, 0x98, 0x24,
};
#define NOBODY "01K00000000000000000000000"

static cm_handle create(cm_handle actor, const char *options, char *text) {
  cm_handle writer = CM_NO_HANDLE;
  cm_buffer room = { (uint8_t *)text, 26, 0 };
  GIVES(CM_OK, files->create(H, actor, T(options), &writer, &room, &error));
  HOLDS(writer != CM_NO_HANDLE && room.size == 26);
  return writer;
}

static void fill(void) {
  for (size_t i = 0; i < sizeof(piece); i++) piece[i] = (uint8_t)(i * 7 + (i >> 9));
}

/* Written in pieces, synced, sealed, looked at, read by two readers, removed while one of them still reads. */
static void whole(void) {
  static uint8_t back[80000];
  char json[2048];
  cm_handle readers[2];
  uint64_t size = 0, offset = 0;
  cm_buffer answer = ROOM(json), room = ROOM(back), small = { back, 10, 0 }, list = ROOM(json);
  fill();
  cm_handle writer = create(CM_NO_HANDLE, "{\"name\":\"a.bin\",\"size\":70000,\"keep_s\":60}", id);
  GIVES(CM_E_EXISTS, files->open(H, CM_NO_HANDLE, T(id), &readers[0], &size, &error));
  CODE("file-unfinished");
  GIVES(CM_OK, files->append(H, writer, (cm_bytes){ piece, 30000 }, &error));
  GIVES(CM_OK, files->sync(H, writer, &offset, &error));
  HOLDS(offset == 30000);
  GIVES(CM_E_EXISTS, files->seal(H, writer, NULL, &answer, &error));
  CODE("file-incomplete");
  GIVES(CM_OK, files->append(H, writer, (cm_bytes){ piece + 30000, 40000 }, &error));
  GIVES(CM_E_INVALID, files->append(H, writer, B("x"), &error));
  CODE("file-too-long");
  GIVES(CM_OK, files->seal(H, writer, NULL, &answer, &error));
  HOLDS(holds(&answer, "\"state\":\"whole\"") && holds(&answer, "\"size\":70000") && holds(&answer, "\"source\":\"plugin " ID "\""));
  HOLDS(holds(&answer, "\"id\":\"plugin:" ID "\""));
  GIVES(CM_E_GONE, files->append(H, writer, B("x"), &error));
  GIVES(CM_E_GONE, files->release(H, writer));
  GIVES(CM_OK, files->get(H, CM_NO_HANDLE, T(id), &answer, &error));
  HOLDS(holds(&answer, id));
  GIVES(CM_OK, files->list(H, CM_NO_HANDLE, T(""), 1, &list, &error));
  HOLDS(holds(&list, id) && holds(&list, "\"next\":\""));
  GIVES(CM_OK, files->list(H, CM_NO_HANDLE, T(id), 1000, &list, &error));
  HOLDS(!holds(&list, id) && holds(&list, "\"next\":null"));
  for (int i = 0; i < 2; i++) {
    GIVES(CM_OK, files->open(H, CM_NO_HANDLE, T(id), &readers[i], &size, &error));
    HOLDS(size == 70000);
  }
  GIVES(CM_OK, files->read(H, readers[0], 0, &room, &error));
  HOLDS(room.size == 70000 && memcmp(back, piece, 70000) == 0);
  GIVES(CM_OK, files->read(H, readers[1], 69995, &small, &error));
  HOLDS(small.size == 5 && memcmp(back, piece + 69995, 5) == 0);
  GIVES(CM_OK, files->read(H, readers[1], 70000, &small, &error));
  HOLDS(small.size == 0);
  GIVES(CM_OK, files->close(H, readers[1]));
  GIVES(CM_E_GONE, files->close(H, readers[1]));
  GIVES(CM_E_GONE, files->read(H, readers[1], 0, &small, &error));
  GIVES(CM_OK, files->remove(H, CM_NO_HANDLE, T(id), &error));
  GIVES(CM_OK, files->read(H, readers[0], 1, &small, &error));
  HOLDS(small.size == 10 && memcmp(back, piece + 1, 10) == 0);
  GIVES(CM_OK, files->close(H, readers[0]));
  GIVES(CM_E_NOT_FOUND, files->get(H, CM_NO_HANDLE, T(id), &answer, &error));
  CODE("file-unknown");
}

/* Let go of and gone on with; taken over; discarded. */
static void resume(void) {
  char json[1024];
  uint64_t offset = 0;
  cm_handle second = 0, third = 0;
  cm_buffer answer = ROOM(json);
  cm_handle first = create(CM_NO_HANDLE, "{\"name\":\"b\"}", id);
  GIVES(CM_OK, files->append(H, first, B("he"), &error));
  GIVES(CM_OK, files->release(H, first));
  GIVES(CM_E_GONE, files->append(H, first, B("x"), &error));
  GIVES(CM_OK, files->resume(H, CM_NO_HANDLE, T(id), &second, &offset, &error));
  HOLDS(offset == 2);
  GIVES(CM_OK, files->append(H, second, B("l"), &error));
  GIVES(CM_OK, files->sync(H, second, &offset, &error));
  GIVES(CM_OK, files->resume(H, CM_NO_HANDLE, T(id), &third, &offset, &error));
  HOLDS(offset == 3);
  GIVES(CM_E_EXISTS, files->append(H, second, B("x"), &error));
  CODE("file-taken-over");
  GIVES(CM_E_GONE, files->append(H, second, B("x"), &error));
  GIVES(CM_OK, files->append(H, third, B("lo"), &error));
  GIVES(CM_OK, files->seal(H, third, hello, &answer, &error));
  HOLDS(holds(&answer, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"));
  GIVES(CM_E_EXISTS, files->resume(H, CM_NO_HANDLE, T(id), &third, &offset, &error));
  CODE("file-whole");
  GIVES(CM_OK, files->remove(H, CM_NO_HANDLE, T(id), &error));
  first = create(CM_NO_HANDLE, "{\"name\":\"c\"}", id);
  GIVES(CM_OK, files->append(H, first, B("hellO"), &error));
  GIVES(CM_E_INVALID, files->seal(H, first, hello, &answer, &error));
  CODE("digest-mismatch");
  GIVES(CM_E_GONE, files->seal(H, first, NULL, &answer, &error));
  GIVES(CM_E_NOT_FOUND, files->get(H, CM_NO_HANDLE, T(id), &answer, &error));
  first = create(CM_NO_HANDLE, "{\"name\":\"d\"}", id);
  GIVES(CM_OK, files->discard(H, first));
  GIVES(CM_E_NOT_FOUND, files->get(H, CM_NO_HANDLE, T(id), &answer, &error));
}

static void refusals(void) {
  char text[27], json[1024];
  cm_buffer room = { (uint8_t *)text, 26, 0 }, small = { (uint8_t *)text, 25, 0 }, none = NO_ROOM, answer = ROOM(json);
  cm_handle handle = 1, many[65];
  uint64_t number = 0;
  GIVES(CM_E_TOO_SMALL, files->create(H, CM_NO_HANDLE, T("{\"name\":\"a\"}"), &handle, &small, &error));
  HOLDS(small.size == 26 && handle == CM_NO_HANDLE);
  GIVES(CM_E_INVALID, files->create(H, CM_NO_HANDLE, T("{"), &handle, &room, &error));
  GIVES(CM_E_INVALID, files->create(H, CM_NO_HANDLE, T("{\"name\":\"a/b\"}"), &handle, &room, &error));
  GIVES(CM_E_INVALID, files->create(H, CM_NO_HANDLE, T("{\"name\":\"a\",\"colour\":1}"), &handle, &room, &error));
  GIVES(CM_E_GONE, files->create(H, 1, T("{\"name\":\"a\"}"), &handle, &room, &error));
  GIVES(CM_E_NOT_FOUND, files->resume(H, CM_NO_HANDLE, T(NOBODY), &handle, &number, &error));
  GIVES(CM_E_INVALID, files->resume(H, CM_NO_HANDLE, T("x"), &handle, &number, &error));
  GIVES(CM_E_NOT_FOUND, files->open(H, CM_NO_HANDLE, T(NOBODY), &handle, &number, &error));
  GIVES(CM_E_NOT_FOUND, files->remove(H, CM_NO_HANDLE, T(NOBODY), &error));
  GIVES(CM_E_INVALID, files->list(H, CM_NO_HANDLE, T("x"), 1, &answer, &error));
  GIVES(CM_E_INVALID, files->list(H, CM_NO_HANDLE, T(""), 0, &answer, &error));
  GIVES(CM_E_INVALID, files->list(H, CM_NO_HANDLE, T(""), 1001, &answer, &error));
  GIVES(CM_E_GONE, files->read(H, 1, 0, &answer, &error));
  GIVES(CM_E_GONE, files->sync(H, 1, &number, &error));
  GIVES(CM_E_GONE, files->discard(H, 1));
  uint8_t *huge = calloc(1, (8 << 20) + 1);
  handle = create(CM_NO_HANDLE, "{\"name\":\"a\"}", id);
  GIVES(CM_OK, files->append(H, handle, (cm_bytes){ huge, 8 << 20 }, &error));
  GIVES(CM_E_TOO_LARGE, files->append(H, handle, (cm_bytes){ huge, (8 << 20) + 1 }, &error));
  GIVES(CM_OK, files->seal(H, handle, NULL, &answer, &error));
  free(huge);
  for (int i = 0; i < 64; i++) GIVES(CM_OK, files->open(H, CM_NO_HANDLE, T(id), &many[i], &number, &error));
  GIVES(CM_E_BUSY, files->open(H, CM_NO_HANDLE, T(id), &many[64], &number, &error));
  GIVES(CM_E_INVALID, files->read(H, many[0], 0, &none, &error));
  for (int i = 0; i < 64; i++) GIVES(CM_OK, files->close(H, many[i]));
  GIVES(CM_OK, files->remove(H, CM_NO_HANDLE, T(id), &error));
  for (int i = 0; i < 64; i++) {
    room = (cm_buffer){ (uint8_t *)text, 26, 0 };
    GIVES(CM_OK, files->create(H, CM_NO_HANDLE, T("{\"name\":\"a\"}"), &many[i], &room, &error));
  }
  GIVES(CM_E_BUSY, files->create(H, CM_NO_HANDLE, T("{\"name\":\"a\"}"), &many[64], &room, &error));
  for (int i = 0; i < 64; i++) GIVES(CM_OK, files->discard(H, many[i]));
}

/* Asked by somebody who may use files: what is made in his name is his, and the plugin's own are not. */
static void owner(cm_handle request) {
  char json[1024], mine[27] = "";
  uint64_t number = 0;
  cm_handle reader = 0;
  cm_buffer answer = ROOM(json);
  cm_handle writer = create(CM_NO_HANDLE, "{\"name\":\"own\",\"keep_s\":60}", kept);
  GIVES(CM_OK, files->seal(H, writer, NULL, &answer, &error));
  GIVES(CM_E_NOT_FOUND, files->get(H, request, T(kept), &answer, &error));
  GIVES(CM_E_NOT_FOUND, files->open(H, request, T(kept), &reader, &number, &error));
  GIVES(CM_E_NOT_FOUND, files->remove(H, request, T(kept), &error));
  GIVES(CM_E_NOT_FOUND, files->resume(H, request, T(kept), &reader, &number, &error));
  writer = create(request, "{\"name\":\"his\"}", mine);
  GIVES(CM_OK, files->seal(H, writer, NULL, &answer, &error));
  GIVES(CM_OK, files->get(H, request, T(mine), &answer, &error));
  HOLDS(holds(&answer, "\"kind\":\"token\""));
  GIVES(CM_OK, files->remove(H, CM_NO_HANDLE, T(mine), &error));
}

/* Asked by somebody who may not. */
static void stranger(cm_handle request) {
  char text[64];
  cm_buffer room = ROOM(text);
  cm_handle handle = 0;
  uint64_t number = 0;
  GIVES(CM_E_DENIED, files->create(H, request, T("{\"name\":\"a\"}"), &handle, &room, &error));
  GIVES(CM_E_DENIED, files->resume(H, request, T(kept), &handle, &number, &error));
  GIVES(CM_E_DENIED, files->get(H, request, T(kept), &room, &error));
  GIVES(CM_E_DENIED, files->list(H, request, T(""), 1, &room, &error));
  GIVES(CM_E_DENIED, files->open(H, request, T(kept), &handle, &number, &error));
  GIVES(CM_E_DENIED, files->remove(H, request, T(kept), &error));
}

/* Left unfinished when the plugin goes; found by its next version. */
static void leave(void) {
  cm_handle writer = create(CM_NO_HANDLE, "{\"name\":\"left\"}", id);
  GIVES(CM_OK, files->append(H, writer, B("left behind"), &error));
}

static void found(void) {
  char json[2048] = "";
  cm_buffer list = ROOM(json), answer = ROOM(json);
  uint64_t offset = 0;
  cm_handle writer = 0;
  GIVES(CM_OK, files->list(H, CM_NO_HANDLE, T(""), 1, &list, &error));
  /* Until the writer of the version before is closed; resumed sooner it would go on from what was durable by then. */
  const int is_left = holds(&list, "\"name\":\"left\"") && holds(&list, "\"offset\":11");
  HOLDS(is_left);
  if (!is_left) return;
  /* The id stands before the name; other files of the plugin may stand before both. */
  const char *mine = json;
  for (const char *next = json; (next = strstr(next, "\"id\":\"")) && next < strstr(json, "\"name\":\"left\""); next++) mine = next;
  snprintf(id, sizeof(id), "%.26s", mine + 6);
  GIVES(CM_OK, files->resume(H, CM_NO_HANDLE, T(id), &writer, &offset, &error));
  HOLDS(offset == 11);
  GIVES(CM_OK, files->seal(H, writer, NULL, &answer, &error));
}

static void *from_elsewhere(void *context) {
  (void)context;
  char other[27] = "";
  cm_handle writer = create(CM_NO_HANDLE, "{\"name\":\"elsewhere\"}", other);
  GIVES(CM_OK, files->discard(H, writer));
  return NULL;
}

/* To a client and back; ends that are failures and cancellations. The step is "push-CLIENT" and so on. */
static char moved[27], end_json[2048];
static cm_handle waiting, watched;
static int progresses, destroyed, cancels;

static void progress(void *context, cm_handle transfer, cm_text json) {
  (void)context;
  cm_buffer text = { (uint8_t *)(uintptr_t)json.data, json.size, json.size };
  HOLDS(transfer == watched && holds(&text, moved));
  progresses++;
  if (!cancels && strstr(end_json, "cancel me")) {
    cancels++;
    GIVES(CM_OK, files->transfer_cancel(H, CM_NO_HANDLE, T(moved), &error));
  }
}

static void ended(void *context, cm_handle transfer, cm_text json) {
  (void)context;
  (void)transfer;
  snprintf(end_json, sizeof(end_json), "%.*s", (int)json.size, json.data);
  answer(waiting);
}

static void end(void *context) { ++*(int *)context; }

static const cm_transfer_callbacks callbacks = { CM_HEAD(cm_transfer_callbacks, 1), progress, ended, end };

static int start_transfer(cm_handle request, const char *client, const char *rest) {
  char text[1024];
  cm_buffer room = { (uint8_t *)moved, 26, 0 };
  waiting = request;
  snprintf(text, sizeof(text), "{\"clients\":[\"%s\"],\"path\":\"%s/%s}", client, getenv("CM_TEST_FOLDER"), rest);
  GIVES(CM_OK, files->transfer_start(H, CM_NO_HANDLE, T(text), &callbacks, &destroyed, &watched, &room, &error));
  return failures[0] != 0;
}

static int transfers(cm_handle request, const char *step) {
  char json[2048], rest[256];
  cm_buffer result = ROOM(json), small = { (uint8_t *)json, 25, 0 }, room = { (uint8_t *)json, 26, 0 };
  uint64_t size = 0;
  cm_handle handle = 0;
  int count = 0;
  const char *client = strchr(step, '-') + 1;
  if (strncmp(step, "push-", 5) == 0) {
    end_json[0] = 0;
    handle = create(CM_NO_HANDLE, "{\"name\":\"hello\"}", kept);
    GIVES(CM_OK, files->append(H, handle, B("hello"), &error));
    GIVES(CM_OK, files->seal(H, handle, NULL, &result, &error));
    snprintf(rest, sizeof(rest), "hello.txt\",\"direction\":\"push\",\"file\":\"%s\"", kept);
    return start_transfer(request, client, rest);
  }
  if (strncmp(step, "pushed-", 7) == 0) {
    HOLDS(strstr(end_json, "\"state\":\"succeeded\"") && strstr(end_json, "\"bytes\":5"));
    HOLDS(destroyed == 1);
    if (destroyed != 1) return 1;
    GIVES(CM_E_NOT_FOUND, files->transfer_unwatch(H, watched));
    GIVES(CM_OK, files->remove(H, CM_NO_HANDLE, T(kept), &error));
  }
  if (strncmp(step, "pull-", 5) == 0) return start_transfer(request, client, "hello.txt\",\"direction\":\"pull\"");
  if (strncmp(step, "pulled-", 7) == 0) {
    char bytes[8];
    cm_buffer piece = ROOM(bytes);
    const char *file = strstr(end_json, "\"file\":\"");
    HOLDS(strstr(end_json, "\"state\":\"succeeded\"") && file);
    if (!file) return 1;
    snprintf(kept, sizeof(kept), "%.26s", file + 8);
    GIVES(CM_OK, files->open(H, CM_NO_HANDLE, T(kept), &handle, &size, &error));
    GIVES(CM_OK, files->read(H, handle, 0, &piece, &error));
    HOLDS(same(&piece, "hello"));
    GIVES(CM_OK, files->close(H, handle));
    GIVES(CM_OK, files->remove(H, CM_NO_HANDLE, T(kept), &error));
  }
  if (strncmp(step, "missing-", 8) == 0) return start_transfer(request, client, "none\",\"direction\":\"pull\"");
  if (strncmp(step, "failed-", 7) == 0) HOLDS(strstr(end_json, "\"state\":\"failed\"") && strstr(end_json, "path-not-found"));
  if (strncmp(step, "slow-", 5) == 0) {
    snprintf(end_json, sizeof(end_json), "cancel me");
    handle = create(CM_NO_HANDLE, "{\"name\":\"slow\"}", kept);
    uint8_t *bytes = calloc(1, 4 << 20);
    GIVES(CM_OK, files->append(H, handle, (cm_bytes){ bytes, 4 << 20 }, &error));
    free(bytes);
    GIVES(CM_OK, files->seal(H, handle, NULL, &result, &error));
    snprintf(rest, sizeof(rest), "slow.bin\",\"direction\":\"push\",\"rate_limit\":65536,\"file\":\"%s\"", kept);
    return start_transfer(request, client, rest);
  }
  if (strncmp(step, "cancelled-", 10) == 0) {
    HOLDS(strstr(end_json, "\"state\":\"cancelled\"") && cancels == 1 && progresses > 0);
    GIVES(CM_OK, files->remove(H, CM_NO_HANDLE, T(kept), &error));
    /* One that is over is told again to whoever asks. */
    end_json[0] = 0;
    waiting = request;
    GIVES(CM_OK, files->transfer_watch(H, CM_NO_HANDLE, T(moved), &callbacks, &destroyed, &watched, &error));
    return failures[0] != 0;
  }
  if (strncmp(step, "refused-", 8) == 0) {
    snprintf(rest, sizeof(rest), "{\"clients\":[\"%s\"],\"path\":\"/x\",\"direction\":\"pull\"}", client);
    GIVES(CM_E_TOO_SMALL, files->transfer_start(H, CM_NO_HANDLE, T(rest), &callbacks, &count, &handle, &small, &error));
    HOLDS(small.size == 26 && count == 1 && handle == CM_NO_HANDLE);
    GIVES(CM_E_INVALID, files->transfer_start(H, CM_NO_HANDLE, T("{"), &callbacks, &count, &handle, &room, &error));
    GIVES(CM_E_INVALID, files->transfer_start(H, CM_NO_HANDLE, T("{\"selector\":\"all\",\"path\":\"/x\",\"direction\":\"pull\"}"), &callbacks, &count, &handle, &room, &error));
    GIVES(CM_E_NOT_FOUND, files->transfer_start(H, CM_NO_HANDLE, T("{\"clients\":[\"" NOBODY "\"],\"path\":\"/x\",\"direction\":\"pull\"}"), &callbacks, &count, &handle, &room, &error));
    GIVES(CM_E_GONE, files->transfer_start(H, 1, T(rest), &callbacks, &count, &handle, &room, &error));
    GIVES(CM_E_NOT_FOUND, files->transfer_watch(H, CM_NO_HANDLE, T(NOBODY), &callbacks, &count, &handle, &error));
    GIVES(CM_E_INVALID, files->transfer_watch(H, CM_NO_HANDLE, T("x"), &callbacks, &count, &handle, &error));
    HOLDS(count == 7);
    GIVES(CM_E_NOT_FOUND, files->transfer_unwatch(H, 1));
    GIVES(CM_E_NOT_FOUND, files->transfer_cancel(H, CM_NO_HANDLE, T(NOBODY), &error));
    /* By somebody who may not. */
    GIVES(CM_E_DENIED, files->transfer_start(H, request, T(rest), NULL, NULL, &handle, &room, &error));
    GIVES(CM_E_DENIED, files->transfer_watch(H, request, T(moved), &callbacks, &count, &handle, &error));
    GIVES(CM_E_DENIED, files->transfer_cancel(H, request, T(moved), &error));
  }
  return 1;
}

/* What the client has: a chain of calls, each checked when it has ended; the last one answers the request. */
static struct { int step, calls, ended; cm_handle request; char client[27], result[2048]; cm_status status; } look;
static int said(const char *text) { return strstr(look.result, text) != NULL; }
static void look_next(void);
static void look_done(void *context, cm_status how, cm_text text) {
  HOLDS(context == &look && look.calls == look.ended && text.size < sizeof(look.result));
  look.calls++;
  look.status = how;
  snprintf(look.result, sizeof(look.result), "%.*s", (int)text.size, text.data);
}
static void look_end(void *context) {
  (void)context;
  look.ended++;
  if (look.request) look_next();
}
static const cm_client_file_callbacks looking = { CM_HEAD(cm_client_file_callbacks, 1), look_done, look_end };

static void look_next(void) {
  static char place[512], one[600], two[600], after[16];
  const cm_client_file_callbacks *back = &looking;
  cm_text client = T(look.client);
  snprintf(place, sizeof(place), "%s/looked", getenv("CM_TEST_FOLDER"));
  snprintf(one, sizeof(one), "%s/one", place);
  snprintf(two, sizeof(two), "%s/two", place);
  switch (look.step++) {
    case 0: GIVES(CM_OK, files->client_make_directory(H, CM_NO_HANDLE, client, T(one), 1, 0700, back, &look, &error)); break;
    case 1:
      HOLDS(look.status == CM_OK && said("{}"));
      GIVES(CM_OK, files->client_make_directory(H, CM_NO_HANDLE, client, T(two), 0, 0700, back, &look, &error));
      break;
    case 2: GIVES(CM_OK, files->client_list(H, CM_NO_HANDLE, client, T(place), T(""), 1, back, &look, &error)); break;
    case 3:
      HOLDS(look.status == CM_OK && said("\"name\":\"one\"") && said("\"next\":\"one\"") && said("\"kind\":\"directory\"") && !said("two"));
      snprintf(after, sizeof(after), "one");
      GIVES(CM_OK, files->client_list(H, CM_NO_HANDLE, client, T(place), T(after), 1000, back, &look, &error));
      break;
    case 4:
      HOLDS(look.status == CM_OK && said("\"name\":\"two\"") && said("\"next\":null") && said("\"mode\":448"));
      GIVES(CM_OK, files->client_rename(H, CM_NO_HANDLE, client, T(one), T(two), 0, back, &look, &error));
      break;
    case 5:
      HOLDS(look.status == CM_E_EXISTS && said("\"code\":\"path-exists\""));
      snprintf(two, sizeof(two), "%s/three", place);
      GIVES(CM_OK, files->client_rename(H, CM_NO_HANDLE, client, T(one), T(two), 1, back, &look, &error));
      break;
    case 6:
      HOLDS(look.status == CM_OK);
      snprintf(one, sizeof(one), "%s/hello.txt", getenv("CM_TEST_FOLDER"));
      GIVES(CM_OK, files->client_hash(H, CM_NO_HANDLE, client, T(one), T("md5"), back, &look, &error));
      break;
    case 7:
      HOLDS(look.status == CM_OK && said("\"hash\":\"5d41402abc4b2a76b9719d911017c592\"") && said("\"size\":5"));
      GIVES(CM_OK, files->client_hash(H, CM_NO_HANDLE, client, T(place), T("sha256"), back, &look, &error));
      break;
    case 8:
      HOLDS(look.status == CM_E_EXISTS && said("path-is-directory"));
      GIVES(CM_OK, files->client_status(H, CM_NO_HANDLE, client, T("/proc/self"), 0, back, &look, &error));
      break;
    case 9:
      HOLDS(look.status == CM_E_DENIED && said("path-not-allowed"));
      GIVES(CM_OK, files->client_status(H, CM_NO_HANDLE, client, T(place), 1, back, &look, &error));
      break;
    case 10:
      HOLDS(look.status == CM_OK && said("/looked\"") && said("directory"));
      GIVES(CM_OK, files->client_remove(H, CM_NO_HANDLE, client, T(place), 0, back, &look, &error));
      break;
    case 11:
      HOLDS(look.status == CM_E_EXISTS && said("directory-not-empty"));
      GIVES(CM_OK, files->client_remove(H, CM_NO_HANDLE, client, T(place), 1, back, &look, &error));
      break;
    case 12:
      HOLDS(look.status == CM_OK && look.calls == 12);
      GIVES(CM_OK, files->client_list(H, CM_NO_HANDLE, T(NOBODY), T("/"), T(""), 1, back, &look, &error));
      break;
    case 13:
      HOLDS(look.status == CM_E_NOT_FOUND);
      /* By somebody who may not. */
      GIVES(CM_OK, files->client_list(H, look.request, client, T("/"), T(""), 1, back, &look, &error));
      break;
    case 14:
      HOLDS(look.status == CM_E_DENIED && said("forbidden"));
      GIVES(CM_OK, files->client_remove(H, look.request, client, T("/tmp/none"), 0, back, &look, &error));
      break;
    case 15: {
      HOLDS(look.status == CM_E_DENIED);
      cm_handle request = look.request;
      look.request = CM_NO_HANDLE;
      int calls = look.calls;
      GIVES(CM_E_INVALID, files->client_list(H, CM_NO_HANDLE, client, T("/"), T(""), 0, back, &look, &error));
      GIVES(CM_E_INVALID, files->client_list(H, CM_NO_HANDLE, T("x"), T("/"), T(""), 1, back, &look, &error));
      GIVES(CM_E_INVALID, files->client_hash(H, CM_NO_HANDLE, client, T("/x"), T("sha1"), back, &look, &error));
      GIVES(CM_E_INVALID, files->client_make_directory(H, CM_NO_HANDLE, client, T("/x"), 0, 010000, back, &look, &error));
      GIVES(CM_E_GONE, files->client_status(H, 1, client, T("/x"), 0, back, &look, &error));
      HOLDS(look.ended == calls + 5 && look.calls == calls);
      answer(request);
      break;
    }
  }
}

static int look_around(cm_handle request, const char *client) {
  look.step = look.calls = look.ended = 0;
  look.request = request;
  snprintf(look.client, sizeof(look.client), "%.26s", client);
  look_next();
  return 0;
}

static int check(cm_handle request, const char *step) {
  if (strncmp(step, "look-", 5) == 0) return look_around(request, step + 5);
  if (strchr(step, '-')) return transfers(request, step);
  if (strcmp(step, "whole") == 0) whole();
  else if (strcmp(step, "resume") == 0) resume();
  else if (strcmp(step, "refusals") == 0) refusals();
  else if (strcmp(step, "owner") == 0) owner(request);
  else if (strcmp(step, "stranger") == 0) stranger(request);
  else if (strcmp(step, "leave") == 0) leave();
  else if (strcmp(step, "found") == 0) found();
  else if (strcmp(step, "threads") == 0) elsewhere(from_elsewhere, NULL);
  else HOLDS(!"a known step");
  return 1;
}

static cm_status on_load(void) {
  files = (const cm_files *)interface(CM_INTERFACE_FILES, CM_OK);
  return files ? CM_OK : CM_E_UNSUPPORTED;
}

static cm_status on_start(void) { return CM_OK; }
static void on_stop(void) {}
