/* The output filter of cm.commands/1: its registration, its refusals, and what the core does with a filter that is wrong in one
 * way each. Compiled with PLAIN it has no capability for it, with SLOW_LANE only half of it; with CRASHES it does. */
#if defined(PLAIN)
#define ID "com.example.plain"
#define AREA "testplain"
#elif defined(SLOW_LANE)
#define ID "com.example.lane"
#define AREA "testlane"
#else
#define ID "com.example.filter"
#define AREA "testfilter"
#endif
#ifndef VERSION
#define VERSION "1.0.0"
#endif
#include "check.h"
#include <stdatomic.h>
#include <time.h>
#if defined(PLAIN)
NOTE("[\"http\",\"commands\"]");
#elif defined(SLOW_LANE)
NOTE("[\"http\",\"output.filter\"]");
#else
NOTE("[\"http\",\"output.filter\",\"inline\"]");
#endif

static const cm_commands *commands;
static cm_handle filter;
static atomic_int mode, calls, destroyed, on_wrong_thread;

enum { UPPER, OVERRUN, UNDERRUN, NEGATIVE, TOO_MANY, HOLD_ALL, HUGE, WAITS, SLOW };
static const char *const modes[] = { "upper", "overrun", "underrun", "negative", "too-many", "hold-all", "huge", "waits", "slow" };

static int64_t upper(void *context, const cm_output_piece *piece, uint8_t *bytes, uint64_t size) {
  cm_buffer none = NO_ROOM;
  cm_handle command;
  (void)context;
  calls++;
#ifdef CRASHES
  *(volatile char *)8 = 1;
#endif
  if (piece->command.size != 26 || piece->client.size != 26 || (piece->stream != 1 && piece->stream != 2)) return CM_E_INVALID;
  for (uint64_t i = 0; i < size; i++)
    if (bytes[i] >= 'a' && bytes[i] <= 'z') bytes[i] -= 32;
  switch (mode) {
    case OVERRUN: bytes[size] = 'x'; break;
    case UNDERRUN: bytes[-1] = 'x'; break;
    case NEGATIVE: return CM_E_UNAVAILABLE;
    case TOO_MANY: return (int64_t)size + 1;
    case HOLD_ALL: return piece->flags & CM_OUTPUT_LAST ? 0 : (int64_t)(size < CM_OUTPUT_HELD ? size : CM_OUTPUT_HELD);
    case HUGE: return INT64_MAX;
    case WAITS:
      on_wrong_thread = commands->run(H, CM_NO_HANDLE, T("{}"), NULL, NULL, &command, &none, NULL) == CM_E_THREAD;
      break;
    case SLOW: {
      struct timespec now, begin;
      clock_gettime(CLOCK_MONOTONIC, &begin);
      do clock_gettime(CLOCK_MONOTONIC, &now);
      while ((now.tv_sec - begin.tv_sec) * 1000000000 + now.tv_nsec - begin.tv_nsec < 8000000);
      break;
    }
  }
  return 0;
}

static void end(void *context) {
  (void)context;
  destroyed++;
}

static const cm_output_filter_callbacks callbacks = { CM_HEAD(cm_output_filter_callbacks, 1), upper, end };

static void *add_elsewhere(void *context) {
  cm_handle other;
  (void)context;
  GIVES(CM_E_THREAD, commands->filter_add(H, &callbacks, NULL, &other, &error));
  return NULL;
}

static void *remove_elsewhere(void *context) {
  (void)context;
  GIVES(CM_OK, commands->filter_remove(H, filter));
  return NULL;
}

static void refusals(void) {
  static const cm_output_filter_callbacks empty = { CM_HEAD(cm_output_filter_callbacks, 1), NULL, end };
  static const cm_output_filter_callbacks headless = { { 0, 0 }, upper, end };
  static const cm_command_callbacks watching = { CM_HEAD(cm_command_callbacks, 1), NULL, NULL, end };
  char text[64];
  cm_buffer room = ROOM(text);
  cm_handle other = 7;
  destroyed = 0;
  GIVES(CM_E_INVALID, commands->filter_add(H, &empty, NULL, &other, &error));
  HOLDS(destroyed == 1 && other == CM_NO_HANDLE);
  GIVES(CM_E_INVALID, commands->filter_add(H, &headless, NULL, &other, &error));
  HOLDS(destroyed == 1);
  elsewhere(add_elsewhere, NULL);
  HOLDS(destroyed == 2);
  GIVES(CM_E_NOT_FOUND, commands->filter_remove(H, 4711));
  /* The table is there without "commands", its other functions are not. */
  GIVES(CM_E_DENIED, commands->run(H, CM_NO_HANDLE, T("{}"), &watching, NULL, &other, &room, &error));
  CODE("plugin-not-granted");
  HOLDS(destroyed == 3);
  GIVES(CM_E_DENIED, commands->run_with_secrets(H, CM_NO_HANDLE, T("{}"), B(""), &watching, NULL, &other, &room, &error));
  GIVES(CM_E_DENIED, commands->watch(H, CM_NO_HANDLE, T("x"), &watching, NULL, &other, &error));
  GIVES(CM_E_DENIED, commands->cancel(H, CM_NO_HANDLE, T("x"), &error));
  GIVES(CM_E_DENIED, commands->output(H, CM_NO_HANDLE, T("x"), T("x"), 1, 0, &room, &error));
  GIVES(CM_E_NOT_FOUND, commands->unwatch(H, 4711));
}

static int check(cm_handle request, const char *step) {
  cm_handle other;
  (void)request;
  for (int i = 0; i < (int)(sizeof(modes) / sizeof(*modes)); i++)
    if (strcmp(step, modes[i]) == 0) {
      mode = i;
      calls = 0;
      return 1;
    }
  if (strcmp(step, "refusals") == 0) refusals();
  else if (strcmp(step, "add") == 0) {
    destroyed = 0;
    GIVES(CM_OK, commands->filter_add(H, &callbacks, NULL, &filter, &error));
    HOLDS(filter != CM_NO_HANDLE);
    GIVES(CM_E_EXISTS, commands->filter_add(H, &callbacks, NULL, &other, &error));
    HOLDS(destroyed == 1);
  } else if (strcmp(step, "remove") == 0) {
    elsewhere(remove_elsewhere, NULL);
    GIVES(CM_E_NOT_FOUND, commands->filter_remove(H, filter));
  } else if (strcmp(step, "destroyed") == 0) HOLDS(destroyed == 2);
  else if (strcmp(step, "waited") == 0) HOLDS(on_wrong_thread);
  else if (strcmp(step, "called") == 0) HOLDS(calls > 0);
  else if (strcmp(step, "denied") == 0) {
    destroyed = 0;
    GIVES(CM_E_DENIED, commands->filter_add(H, &callbacks, NULL, &other, &error));
    CODE("plugin-not-granted");
    HOLDS(destroyed == 1);
  } else HOLDS(!"a known step");
  return 1;
}

static cm_status on_load(void) {
  commands = (const cm_commands *)interface(CM_INTERFACE_COMMANDS, CM_OK);
  return CM_HAS(commands, filter_add) && CM_HAS(commands, filter_remove) ? CM_OK : CM_E_UNSUPPORTED;
}

static cm_status on_start(void) { return CM_OK; }
static void on_stop(void) {}
