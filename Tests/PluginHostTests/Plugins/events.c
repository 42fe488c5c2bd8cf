/* cm.events/1: publish, subscribe, falling behind, refusals. */
#define ID "com.example.herald"
#define VERSION "1.0.0"
#define AREA "testevents"
#include "check.h"
#include <time.h>
NOTE("[\"http\",\"events\"]");

static const cm_events *events;
static cm_handle waiting, subscription;
static int destroyed, heard;
static uint64_t missed_count;

static void count_destroy(void *context) { ++*(int *)context; }

static void event(void *context, cm_text kind, cm_text json) {
  (void)context;
  cm_buffer text = { (uint8_t *)(uintptr_t)json.data, json.size, json.size };
  heard++;
  HOLDS(kind.size == 10 && memcmp(kind.data, "herald.one", 10) == 0);
  HOLDS(holds(&text, "\"kind\":\"herald.one\"") && holds(&text, "\"subject\":\"dawn\"") && holds(&text, "\"data\":{\"a\":1}"));
  GIVES(CM_OK, events->unsubscribe(H, subscription));
  GIVES(CM_E_NOT_FOUND, events->unsubscribe(H, subscription));
  HOLDS(destroyed == 0);
  answer(waiting);
}

static void ignore(void *context, cm_text kind, cm_text json) {
  (void)context;
  (void)kind;
  (void)json;
}

static void missed(void *context, uint64_t count) {
  (void)context;
  missed_count += count;
  HOLDS(count > 0);
  GIVES(CM_OK, events->unsubscribe(H, subscription));
  answer(waiting);
}

static void flood(void) {
  static char data[4090];
  memset(data, 'x', sizeof(data));
  data[0] = data[sizeof(data) - 1] = '"';
  int published = 0, busy = 0;
  /* The ring keeps 8 MiB; this thread is the one that would hear of it. */
  for (int round = 0; round < 400 && published < 2300; round++) {
    cm_status status;
    while (published < 2300 && (status = events->publish(H, T("herald.flood"), T(""), T(""), (cm_text){ data, sizeof(data) })) == CM_OK) published++;
    if (published < 2300) {
      HOLDS(status == CM_E_BUSY);
      busy = 1;
      struct timespec pause = { 0, 20000000 };
      nanosleep(&pause, NULL);
    }
  }
  HOLDS(published == 2300 && busy);
}

static void *from_elsewhere(void *context) {
  cm_handle handle;
  cm_event_callbacks callbacks = { CM_HEAD(cm_event_callbacks, 1), event, NULL, count_destroy };
  int count = 0;
  GIVES(CM_E_THREAD, events->subscribe(H, T("*"), &callbacks, &count, &handle, &error));
  HOLDS(count == 1);
  GIVES(CM_OK, events->publish(H, T("herald.two"), T(""), T(""), T("")));
  return context;
}

static void refusals(void) {
  static char long_data[5000];
  cm_handle many[70];
  int open = 0;
  /* Counted up after this function, too. */
  static int count;
  cm_event_callbacks callbacks = { CM_HEAD(cm_event_callbacks, 1), ignore, NULL, count_destroy };
  cm_event_callbacks deaf = { CM_HEAD(cm_event_callbacks, 1), NULL, NULL, count_destroy };
  memset(long_data, '1', sizeof(long_data));
  GIVES(CM_E_INVALID, events->publish(H, T("client.online"), T(""), T(""), T("")));
  GIVES(CM_E_INVALID, events->publish(H, T("herald."), T(""), T(""), T("")));
  GIVES(CM_E_INVALID, events->publish(H, T("heralds.one"), T(""), T(""), T("")));
  GIVES(CM_E_INVALID, events->publish(H, T("herald.One"), T(""), T(""), T("")));
  GIVES(CM_E_INVALID, events->publish(H, T("herald.one"), T(""), T(""), T("{")));
  GIVES(CM_E_INVALID, events->publish(H, T("herald.one"), T(""), T(""), (cm_text){ long_data, 4097 }));
  GIVES(CM_E_NOT_FOUND, events->publish(H, T("herald.one"), T("nobody"), T(""), T("")));
  GIVES(CM_OK, events->publish(H, T("com.example.herald.one"), T(""), T(""), T("[1]")));
  GIVES(CM_E_INVALID, events->subscribe(H, T(""), &callbacks, &count, &many[0], &error));
  GIVES(CM_E_INVALID, events->subscribe(H, T("*"), &deaf, &count, &many[0], &error));
  HOLDS(count == 2);
  while (open < 70 && events->subscribe(H, T("none.such"), &callbacks, &count, &many[open], NULL) == CM_OK) open++;
  HOLDS(open == 64 && count == 3);
  while (open > 0) GIVES(CM_OK, events->unsubscribe(H, many[--open]));
}

static int check(cm_handle request, const char *step) {
  static cm_event_callbacks callbacks = { CM_HEAD(cm_event_callbacks, 1), event, NULL, count_destroy };
  static cm_event_callbacks slow = { CM_HEAD(cm_event_callbacks, 1), ignore, missed, NULL };
  if (strcmp(step, "subscribe") == 0) {
    waiting = request;
    GIVES(CM_OK, events->subscribe(H, T("nothing.else,herald.*"), &callbacks, &destroyed, &subscription, &error));
    GIVES(CM_OK, events->publish(H, T("herald.one"), T(""), T("dawn"), T("{\"a\":1}")));
    GIVES(CM_OK, events->publish(H, T("herald.one"), T(""), T("dawn"), T("{\"a\":1}")));
    return 0;
  }
  if (strcmp(step, "destroyed") == 0) HOLDS(destroyed == 1 && heard == 1);
  else if (strcmp(step, "behind") == 0) {
    waiting = request;
    GIVES(CM_OK, events->subscribe(H, T("herald.*"), &slow, NULL, &subscription, &error));
    flood();
    return 0;
  } else if (strcmp(step, "refusals") == 0) refusals();
  else if (strcmp(step, "threads") == 0) elsewhere(from_elsewhere, NULL);
  else HOLDS(!"a known step");
  return 1;
}

static cm_status on_load(void) {
  static cm_event_callbacks callbacks = { CM_HEAD(cm_event_callbacks, 1), ignore, NULL, count_destroy };
  int count = 0;
  events = (const cm_events *)interface(CM_INTERFACE_EVENTS, CM_OK);
  if (!events) return CM_E_UNSUPPORTED;
  GIVES(CM_E_STATE, events->subscribe(H, T("*"), &callbacks, &count, &subscription, &error));
  HOLDS(count == 1);
  return CM_OK;
}

static cm_status on_start(void) { return CM_OK; }
static void on_stop(void) {}
