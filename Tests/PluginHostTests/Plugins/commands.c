/* cm.commands/1 with one real agent: run, watch, output, cancel; in the plugin's own name and in that of whoever asks. */
#define ID "com.example.runner"
#define VERSION "1.0.0"
#define AREA "testcommands"
#include "check.h"
NOTE("[\"http\",\"clients.read\",\"commands\"]");

static const cm_commands *commands;
static const cm_clients *clients;
static char client[27], id[27], slow[27];
static cm_handle waiting, command;
static int targets, ended, destroyed;

static const char *specification(const char *rest) {
  static char text[512];
  snprintf(text, sizeof(text), "{\"clients\":[\"%s\"],%s}", client, rest);
  return text;
}

static void target_ended(void *context, cm_handle which, cm_text json) {
  (void)context;
  cm_buffer text = { (uint8_t *)(uintptr_t)json.data, json.size, json.size };
  HOLDS(holds(&text, client) && holds(&text, "\"state\":"));
  targets++;
  (void)which;
}

static void all_ended(void *context, cm_handle which, cm_text json) {
  (void)context;
  cm_buffer text = { (uint8_t *)(uintptr_t)json.data, json.size, json.size };
  HOLDS(holds(&text, "\"state\":\"finished\"") && holds(&text, "\"target_count\":1"));
  HOLDS(targets == 1);
  (void)which;
  ended++;
  answer(waiting);
}

static void end(void *context) { ++*(int *)context; }

static const cm_command_callbacks callbacks = { CM_HEAD(cm_command_callbacks, 1), target_ended, all_ended, end };

static void begin(cm_handle request) {
  waiting = request;
  targets = ended = destroyed = 0;
}

static void output(cm_handle request) {
  char bytes[64];
  cm_buffer room = ROOM(bytes), one = { (uint8_t *)bytes, 1, 0 }, none = NO_ROOM;
  GIVES(CM_OK, commands->output(H, CM_NO_HANDLE, T(id), T(client), 1, 0, &room, &error));
  HOLDS(same(&room, "hi\n"));
  GIVES(CM_OK, commands->output(H, request, T(id), T(client), 1, 1, &one, &error));
  HOLDS(same(&one, "i"));
  GIVES(CM_OK, commands->output(H, CM_NO_HANDLE, T(id), T(client), 1, 3, &room, &error));
  HOLDS(room.size == 0);
  GIVES(CM_OK, commands->output(H, CM_NO_HANDLE, T(id), T(client), 2, 0, &room, &error));
  HOLDS(room.size == 0);
  GIVES(CM_E_INVALID, commands->output(H, CM_NO_HANDLE, T(id), T(client), 3, 0, &room, &error));
  GIVES(CM_E_INVALID, commands->output(H, CM_NO_HANDLE, T(id), T(client), 1, 0, &none, &error));
  GIVES(CM_E_NOT_FOUND, commands->output(H, CM_NO_HANDLE, T("01K00000000000000000000000"), T(client), 1, 0, &room, &error));
}

static void refusals(cm_handle request) {
  char text[27];
  cm_buffer room = { (uint8_t *)text, 26, 0 }, small = { (uint8_t *)text, 25, 0 };
  int count = 0;
  GIVES(CM_E_TOO_SMALL, commands->run(H, CM_NO_HANDLE, T(specification("\"argv\":[\"/bin/true\"]")), &callbacks, &count, &command, &small, &error));
  HOLDS(small.size == 26 && count == 1 && command == CM_NO_HANDLE);
  GIVES(CM_E_INVALID, commands->run(H, CM_NO_HANDLE, T("{"), &callbacks, &count, &command, &room, &error));
  GIVES(CM_E_INVALID, commands->run(H, CM_NO_HANDLE, T(specification("\"argv\":[\"/bin/true\"],\"wait_s\":1")), NULL, NULL, &command, &room, &error));
  GIVES(CM_E_NOT_FOUND, commands->run(H, CM_NO_HANDLE, T("{\"clients\":[\"01K00000000000000000000000\"],\"argv\":[\"/bin/true\"]}"), NULL, NULL, &command, &room, &error));
  GIVES(CM_E_GONE, commands->run(H, 1, T(specification("\"argv\":[\"/bin/true\"]")), NULL, NULL, &command, &room, &error));
  HOLDS(count == 2);
  GIVES(CM_E_NOT_FOUND, commands->watch(H, CM_NO_HANDLE, T("01K00000000000000000000000"), &callbacks, &count, &command, &error));
  GIVES(CM_E_INVALID, commands->watch(H, CM_NO_HANDLE, T("x"), &callbacks, &count, &command, &error));
  HOLDS(count == 4);
  GIVES(CM_E_NOT_FOUND, commands->unwatch(H, 1));
  GIVES(CM_E_NOT_FOUND, commands->cancel(H, CM_NO_HANDLE, T("01K00000000000000000000000"), &error));
  /* Without callbacks nobody watches. */
  GIVES(CM_OK, commands->run(H, request, T(specification("\"argv\":[\"/bin/true\"]")), NULL, NULL, &command, &room, &error));
  HOLDS(command == CM_NO_HANDLE);
}

/* Asked by somebody who may see commands, and run none. */
static void viewer(cm_handle request) {
  char text[64];
  cm_buffer room = ROOM(text);
  static int count;
  GIVES(CM_E_DENIED, commands->run(H, request, T(specification("\"argv\":[\"/bin/true\"]")), &callbacks, &count, &command, &room, &error));
  HOLDS(count == 1);
  GIVES(CM_E_DENIED, commands->cancel(H, request, T(id), &error));
  GIVES(CM_E_DENIED, commands->output(H, request, T(id), T(client), 1, 0, &room, &error));
  GIVES(CM_OK, commands->watch(H, request, T(id), &callbacks, &count, &command, &error));
  GIVES(CM_OK, commands->unwatch(H, command));
}

#define SECRET "correct-horse-battery"
#define VARIABLES(text) ((cm_bytes){ (const uint8_t *)(text), sizeof(text) })

static cm_status with_secrets(const char *rest, cm_bytes variables, cm_buffer *room) {
  return commands->run_with_secrets(H, CM_NO_HANDLE, T(specification(rest)), variables, &callbacks, &destroyed, &command, room, &error);
}

/* What was stored: the value, and base 64 of it after nothing and after one byte. */
static void masked(void) {
  char bytes[256];
  cm_buffer room = ROOM(bytes);
  GIVES(CM_OK, commands->output(H, CM_NO_HANDLE, T(id), T(client), 1, 0, &room, &error));
  HOLDS(same(&room, "it is *********************\n****************************\neG***************************Q==\n"));
}

static void secret_refusals(void) {
  char text[27];
  cm_buffer room = { (uint8_t *)text, 26, 0 };
  destroyed = 0;
  GIVES(CM_E_INVALID, with_secrets("\"argv\":[\"/bin/true\"],\"offline\":\"queue\"", VARIABLES("TOKEN=" SECRET), &room));
  GIVES(CM_E_INVALID, with_secrets("\"argv\":[\"/bin/true\"]", B("TOKEN=" SECRET), &room));
  HOLDS(!memmem(error.text, error.text_size, SECRET, strlen(SECRET)));
  GIVES(CM_E_INVALID, with_secrets("\"argv\":[\"/bin/true\"]", VARIABLES("TOKEN"), &room));
  GIVES(CM_E_INVALID, with_secrets("\"argv\":[\"/bin/true\"]", VARIABLES("TOKEN=a\0TOKEN=b"), &room));
  GIVES(CM_E_INVALID, with_secrets("\"argv\":[\"/bin/true\"]", VARIABLES("1TOKEN=" SECRET), &room));
  HOLDS(!memmem(error.text, error.text_size, SECRET, strlen(SECRET)));
  GIVES(CM_E_INVALID, with_secrets("\"argv\":[\"/bin/true\"],\"env\":{\"TOKEN\":\"x\"}", VARIABLES("TOKEN=" SECRET), &room));
  HOLDS(destroyed == 6);
}

static int check(cm_handle request, const char *step) {
  cm_buffer room = { (uint8_t *)id, 26, 0 };
  char bytes[128];
  if (strcmp(step, "run") == 0) {
    cm_buffer list = ROOM(bytes);
    begin(request);
    GIVES(CM_OK, clients->select(H, CM_NO_HANDLE, T(""), T(""), 1, &list, &error));
    snprintf(client, sizeof(client), "%.26s", bytes + 11);
    GIVES(CM_OK, commands->run(H, CM_NO_HANDLE, T(specification("\"argv\":[\"/bin/echo\",\"hi\"]")), &callbacks, &destroyed, &command, &room, &error));
    if (failures[0]) return 1;
    return 0;
  }
  if (strcmp(step, "watch") == 0) {
    begin(request);
    GIVES(CM_OK, commands->watch(H, CM_NO_HANDLE, T(id), &callbacks, &destroyed, &command, &error));
    return 0;
  }
  if (strcmp(step, "secrets") == 0) {
    begin(request);
    GIVES(CM_OK, with_secrets("\"argv\":[\"/bin/sh\",\"-c\",\"echo it is $TOKEN; printf %s $TOKEN | base64; printf x%s $TOKEN | base64\"]", VARIABLES("TOKEN=" SECRET), &room));
    return 0;
  }
  if (strcmp(step, "secrets-held") == 0) {
    begin(request);
    GIVES(CM_OK, with_secrets("\"argv\":[\"/bin/sh\",\"-c\",\"test -n $TOKEN && echo there; exec sleep 60\"]", VARIABLES("TOKEN=" SECRET), &room));
    return 1;
  }
  if (strcmp(step, "cancel") == 0) {
    cm_buffer place = { (uint8_t *)slow, 26, 0 }, piece = ROOM(bytes);
    begin(request);
    GIVES(CM_OK, commands->run(H, request, T(specification("\"argv\":[\"/bin/sleep\",\"60\"]")), &callbacks, &destroyed, &command, &place, &error));
    GIVES(CM_E_UNAVAILABLE, commands->output(H, CM_NO_HANDLE, T(slow), T(client), 1, 0, &piece, &error));
    CODE("output-not-yet");
    GIVES(CM_OK, commands->cancel(H, CM_NO_HANDLE, T(slow), &error));
    return 0;
  }
  if (strcmp(step, "destroyed") == 0) {
    HOLDS(destroyed == 1 && ended == 1);
    GIVES(CM_E_NOT_FOUND, commands->unwatch(H, command));
  } else if (strcmp(step, "output") == 0) output(request);
  else if (strcmp(step, "refusals") == 0) refusals(request);
  else if (strcmp(step, "masked") == 0) masked();
  else if (strcmp(step, "secret-refusals") == 0) secret_refusals();
  else if (strcmp(step, "viewer") == 0) viewer(request);
  else HOLDS(!"a known step");
  return 1;
}

static cm_status on_load(void) {
  commands = (const cm_commands *)interface(CM_INTERFACE_COMMANDS, CM_OK);
  clients = (const cm_clients *)interface(CM_INTERFACE_CLIENTS, CM_OK);
  return commands && clients ? CM_OK : CM_E_UNSUPPORTED;
}

static cm_status on_start(void) { return CM_OK; }
static void on_stop(void) {}
