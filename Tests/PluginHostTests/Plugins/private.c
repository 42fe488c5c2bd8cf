/* cm.private_files/1 with one real agent: put, list, remove, its bounds and refusals; as another plugin too. */
#ifdef OTHER
#define ID "com.example.snoop"
#define AREA "testsnoop"
#else
#define ID "com.example.placer"
#define AREA "testprivate"
#endif
#define VERSION "1.0.0"
#include "check.h"
NOTE("[\"http\",\"clients.read\",\"private-files\"]");

static const cm_private_files *files;
static const cm_clients *clients;
static char client[27], result[4096];
static cm_handle waiting;
static cm_status status;
static int calls, destroyed, wanted;

static void done(void *context, cm_status how, cm_text text) {
  HOLDS(context == &calls && calls == destroyed);
  calls++;
  status = how;
  HOLDS(text.size < sizeof(result));
  snprintf(result, sizeof(result), "%.*s", (int)text.size, text.data);
}

static int has(const char *text) { return strstr(result, text) != NULL; }

static void then(void);

static void end(void *context) {
  (void)context;
  destroyed++;
  if (wanted) then();
}

static const cm_private_file_callbacks callbacks = { CM_HEAD(cm_private_file_callbacks, 1), done, end };

#define HELLO "\"sha256\":\"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824\""

static cm_status put(cm_handle actor, const char *specification, cm_bytes content) {
  return files->put(H, actor, T(client), T(specification), content, &callbacks, &calls, &error);
}

/* Each step begins one call, and is checked when the call has ended. */
static void then(void) {
  int step = wanted;
  wanted = 0;
  HOLDS(calls == destroyed);
  switch (step) {
    case 1:
      HOLDS(status == CM_OK && has("\"changed\":true") && has("\"name\":\"greeting\"") && has("\"mode\":288"));
      HOLDS(has(HELLO) && has("\"expires_in_ms\":") && has("/greeting\""));
      break;
    case 2: HOLDS(status == CM_OK && has("\"changed\":false") && has(HELLO)); break;
    case 3: HOLDS(status == CM_OK && has("{\"items\":[{\"name\":\"greeting\"") && has(HELLO)); break;
    case 4: HOLDS(status == CM_OK && has("{\"items\":[]}")); break;
    case 5: HOLDS(status == CM_E_EXISTS && has("\"code\":\"private-file-foreign\"")); break;
    case 6: HOLDS(status == CM_OK && has("\"changed\":true")); break;
    case 7: HOLDS(status == CM_OK && has("\"changed\":false")); break;
    case 8: HOLDS(status == CM_E_EXISTS && has("\"code\":\"agent-policy\"")); break;
    case 9: HOLDS(status == CM_E_DENIED && has("\"code\":\"forbidden\"")); break;
    case 10: HOLDS(status == CM_E_NOT_FOUND); break;
    case 11: HOLDS(status == CM_E_EXISTS && has("\"code\":\"client-offline\"")); break;
  }
  answer(waiting);
}

static void refusals(void) {
  static uint8_t large[1040385];
  char none[27] = "";
  int before = destroyed;
  GIVES(CM_E_INVALID, put(CM_NO_HANDLE, "{", B("x")));
  GIVES(CM_E_INVALID, put(CM_NO_HANDLE, "{\"name\":\"../x\"}", B("x")));
  GIVES(CM_E_INVALID, put(CM_NO_HANDLE, "{\"name\":\"x\",\"mode\":511}", B("x")));
  GIVES(CM_E_INVALID, put(CM_NO_HANDLE, "{\"name\":\"x\",\"hook\":[\"stop\",\"a\"]}", B("x")));
  GIVES(CM_E_INVALID, put(CM_NO_HANDLE, "{\"name\":\"x\",\"path\":\"/etc/x\"}", B("x")));
  GIVES(CM_E_TOO_LARGE, put(CM_NO_HANDLE, "{\"name\":\"x\"}", (cm_bytes){ large, sizeof(large) }));
  GIVES(CM_E_GONE, put(1, "{\"name\":\"x\"}", B("x")));
  GIVES(CM_E_INVALID, files->list(H, CM_NO_HANDLE, T(none), &callbacks, &calls, &error));
  GIVES(CM_E_INVALID, files->remove(H, CM_NO_HANDLE, T(client), (cm_text){ (char *)large, 65 }, &callbacks, &calls, &error));
  HOLDS(destroyed == before + 9 && calls == before);
  calls = destroyed;
  cm_private_file_callbacks senseless = { { 0, 0 }, done, end };
  GIVES(CM_E_INVALID, files->list(H, CM_NO_HANDLE, T(client), &senseless, &calls, &error));
}

#define GREETING "{\"name\":\"greeting\",\"mode\":288,\"ttl_s\":600}"

static int check(cm_handle request, const char *step) {
  char bytes[128];
  cm_buffer list = ROOM(bytes);
  waiting = request;
  if (!client[0]) {
    GIVES(CM_OK, clients->select(H, CM_NO_HANDLE, T(""), T(""), 1, &list, &error));
    snprintf(client, sizeof(client), "%.26s", bytes + 11);
  }
#define BEGIN(number, call)                 \
  do {                                      \
    wanted = number;                        \
    GIVES(CM_OK, call);                     \
    if (error.status != CM_OK) wanted = 0;  \
    return wanted == 0;                     \
  } while (0)
  if (strcmp(step, "put") == 0) BEGIN(1, put(CM_NO_HANDLE, GREETING, B("hello")));
  if (strcmp(step, "again") == 0) BEGIN(2, put(CM_NO_HANDLE, GREETING, B("hello")));
  if (strcmp(step, "list") == 0) BEGIN(3, files->list(H, CM_NO_HANDLE, T(client), &callbacks, &calls, &error));
  if (strcmp(step, "none") == 0) BEGIN(4, files->list(H, CM_NO_HANDLE, T(client), &callbacks, &calls, &error));
  if (strcmp(step, "foreign") == 0) BEGIN(5, put(CM_NO_HANDLE, GREETING, B("hello")));
  if (strcmp(step, "remove") == 0) BEGIN(6, files->remove(H, CM_NO_HANDLE, T(client), T("greeting"), &callbacks, &calls, &error));
  if (strcmp(step, "gone") == 0) BEGIN(7, files->remove(H, CM_NO_HANDLE, T(client), T("greeting"), &callbacks, &calls, &error));
  if (strcmp(step, "hook") == 0) BEGIN(8, put(CM_NO_HANDLE, "{\"name\":\"x\",\"hook\":[\"run\",\"/bin/true\"]}", B("x")));
  if (strcmp(step, "stranger") == 0) BEGIN(9, put(request, GREETING, B("hello")));
  if (strcmp(step, "nobody") == 0) BEGIN(10, files->list(H, CM_NO_HANDLE, T("01K00000000000000000000000"), &callbacks, &calls, &error));
  if (strcmp(step, "offline") == 0) BEGIN(11, put(CM_NO_HANDLE, GREETING, B("hello")));
  if (strcmp(step, "refusals") == 0) refusals();
  else HOLDS(!"a known step");
  return 1;
}

static cm_status on_load(void) {
  files = (const cm_private_files *)interface(CM_INTERFACE_PRIVATE_FILES, CM_OK);
  clients = (const cm_clients *)interface(CM_INTERFACE_CLIENTS, CM_OK);
  return files && clients ? CM_OK : CM_E_UNSUPPORTED;
}

static cm_status on_start(void) { return CM_OK; }
static void on_stop(void) {}
