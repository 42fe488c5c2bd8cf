/* cm.clients/1: in the plugin's own name, in the name of whoever asks, on threads where it may not. One agent is online. */
#ifdef READER
#define ID "com.example.reader"
#define AREA "testreader"
#define CAPABILITIES "[\"http\",\"clients.read\",\"inline\"]"
#else
#define ID "com.example.registrar"
#define AREA "testclients"
#define CAPABILITIES "[\"http\",\"clients.read\",\"clients.write\",\"inline\"]"
#endif
#define VERSION "1.0.0"
#include "check.h"
NOTE(CAPABILITIES);

static const cm_clients *clients;
static char client[64];
static cm_handle before;

static void find(void) {
  char bytes[256];
  cm_buffer room = ROOM(bytes);
  GIVES(CM_OK, clients->select(H, CM_NO_HANDLE, T(""), T(""), 10, &room, &error));
  HOLDS(room.size == 26 + 26);
  snprintf(client, sizeof(client), "%.26s", bytes + 11);
}

static void own(void) {
  static char bytes[65536];
  char text[128];
  cm_buffer room = ROOM(bytes), none = NO_ROOM;
  find();
  snprintf(text, sizeof(text), "\"id\":\"%s\"", client);
  GIVES(CM_OK, clients->get(H, CM_NO_HANDLE, T(client), &room, &error));
  HOLDS(holds(&room, text) && holds(&room, "\"heartbeats\":"));
  GIVES(CM_E_TOO_SMALL, clients->get(H, CM_NO_HANDLE, T(client), &none, &error));
  /* The size that is needed; between the calls a beat may have come, whose numbers have other lengths. */
  HOLDS(none.size + 64 > room.size && none.size < room.size + 64);
  GIVES(CM_E_NOT_FOUND, clients->get(H, CM_NO_HANDLE, T("01K00000000000000000000000"), &room, &error));
  GIVES(CM_E_INVALID, clients->get(H, CM_NO_HANDLE, T("nobody"), &room, &error));
  GIVES(CM_E_GONE, clients->get(H, 1, T(client), &room, &error));
  HOLDS(clients->is_online(H, T(client)) == 1);
  HOLDS(clients->is_online(H, T("01K00000000000000000000000")) == 0);
  HOLDS(clients->is_online(H, T("")) == 0);

  GIVES(CM_OK, clients->set_labels(H, CM_NO_HANDLE, T(client), T("{\"tier\":\"gold\",\"gone\":\"x\"}"), &error));
  GIVES(CM_OK, clients->set_labels(H, CM_NO_HANDLE, T(client), T("{\"gone\":null}"), &error));
  GIVES(CM_OK, clients->select(H, CM_NO_HANDLE, T("tier=gold,!gone"), T(""), 1, &room, &error));
  snprintf(text, sizeof(text), "{\"items\":[\"%s\"],\"next\":null}", client);
  HOLDS(same(&room, text));
  GIVES(CM_OK, clients->select(H, CM_NO_HANDLE, T("tier=gold"), T(client), 1, &room, &error));
  HOLDS(same(&room, "{\"items\":[],\"next\":null}"));
  GIVES(CM_OK, clients->select(H, CM_NO_HANDLE, T("tier=tin"), T(""), 1, &room, &error));
  HOLDS(same(&room, "{\"items\":[],\"next\":null}"));
  GIVES(CM_OK, clients->select_asserted(H, CM_NO_HANDLE, T("tier=gold,!gone"), T(""), 1, &room, &error));
  HOLDS(same(&room, text));
  GIVES(CM_OK, clients->select(H, CM_NO_HANDLE, T("tier=gold,state=online"), T(""), 1, &room, &error));
  GIVES(CM_E_INVALID, clients->select_asserted(H, CM_NO_HANDLE, T("tier=gold,state=online"), T(""), 1, &room, &error));
  CODE("selector-not-asserted");
  GIVES(CM_E_INVALID, clients->select_asserted(H, CM_NO_HANDLE, T("tier=gold or fact.tier=gold"), T(""), 1, &room, &error));
  CODE("selector-not-asserted");
  GIVES(CM_E_INVALID, clients->select(H, CM_NO_HANDLE, T("=="), T(""), 1, &room, &error));
  GIVES(CM_E_INVALID, clients->select(H, CM_NO_HANDLE, T(""), T("x"), 1, &room, &error));
  GIVES(CM_E_INVALID, clients->select(H, CM_NO_HANDLE, T(""), T(""), 0, &room, &error));
  GIVES(CM_E_INVALID, clients->select(H, CM_NO_HANDLE, T(""), T(""), 10001, &room, &error));
  GIVES(CM_E_INVALID, clients->set_labels(H, CM_NO_HANDLE, T(client), T("{\"a\":1}"), &error));
  GIVES(CM_E_INVALID, clients->set_labels(H, CM_NO_HANDLE, T(client), T("{}"), &error));
  GIVES(CM_E_NOT_FOUND, clients->set_labels(H, CM_NO_HANDLE, T("01K00000000000000000000000"), T("{\"a\":\"b\"}"), &error));
}

/* Asked by somebody who may look at clients and change none. */
static void viewer(cm_handle request) {
  static char bytes[65536];
  cm_buffer room = ROOM(bytes);
  GIVES(CM_OK, clients->get(H, request, T(client), &room, &error));
  GIVES(CM_OK, clients->select(H, request, T("tier=gold"), T(""), 1, &room, &error));
  HOLDS(holds(&room, client));
  GIVES(CM_E_DENIED, clients->set_labels(H, request, T(client), T("{\"tier\":\"lead\"}"), &error));
  before = request;
}

/* Asked by somebody who may look at no client at all. */
static void stranger(cm_handle request) {
  static char bytes[65536];
  cm_buffer room = ROOM(bytes);
  GIVES(CM_E_NOT_FOUND, clients->get(H, request, T(client), &room, &error));
  GIVES(CM_OK, clients->select(H, request, T(""), T(""), 1, &room, &error));
  HOLDS(same(&room, "{\"items\":[],\"next\":null}"));
  GIVES(CM_E_GONE, clients->get(H, before, T(client), &room, &error));
  CODE("plugin-handle");
}

static int check(cm_handle request, const char *step) {
  if (strcmp(step, "own") == 0) own();
  else if (strcmp(step, "viewer") == 0) viewer(request);
  else if (strcmp(step, "stranger") == 0) stranger(request);
  else if (strcmp(step, "reader") == 0) {
    find();
    GIVES(CM_E_DENIED, clients->set_labels(H, CM_NO_HANDLE, T(client), T("{\"a\":\"b\"}"), &error));
    CODE("plugin-not-granted");
  } else HOLDS(!"a known step");
  return 1;
}

/* On a loop of the core. */
static void inline_request(void *context, cm_handle request, cm_bytes body) {
  char bytes[256];
  cm_buffer room = ROOM(bytes);
  (void)context;
  (void)body;
  GIVES(CM_E_THREAD, clients->get(H, CM_NO_HANDLE, T(client), &room, &error));
  GIVES(CM_E_THREAD, clients->set_labels(H, CM_NO_HANDLE, T(client), T("{\"a\":\"b\"}"), &error));
  GIVES(CM_OK, clients->select(H, CM_NO_HANDLE, T(""), T(""), 10, &room, &error));
  answer(request);
}

static cm_status on_load(void) {
  static cm_route_callbacks callbacks = { CM_HEAD(cm_route_callbacks, 1), inline_request, NULL, NULL, NULL, NULL };
  cm_handle route;
  clients = (const cm_clients *)interface(CM_INTERFACE_CLIENTS, CM_OK);
  interface(CM_INTERFACE_AUDIT, CM_E_DENIED);
  interface(CM_INTERFACE_COMMANDS, CM_E_DENIED);
  interface("cm.nothing/1", CM_E_NOT_FOUND);
  if (!clients) return CM_E_UNSUPPORTED;
  return http->route_add(
      H, T("{\"method\":\"GET\",\"path\":\"/api/v1/" AREA "/inline\",\"right\":\"" AREA ".read\",\"inline\":true,"
           "\"operation\":{\"summary\":\"Checks.\",\"responses\":{\"200\":{\"description\":\"What was found.\"}}}}"),
      &callbacks, NULL, &route, &error);
}

static cm_status on_start(void) { return CM_OK; }
static void on_stop(void) {}
