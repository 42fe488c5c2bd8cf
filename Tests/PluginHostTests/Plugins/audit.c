/* cm.audit/1: writing, and a sink that forgets nothing over a restart. */
#define ID "com.example.notary"
#define VERSION "1.0.0"
#define AREA "testaudit"
#include "check.h"
NOTE("[\"http\",\"audit.write\",\"audit.read\"]");

static const cm_audit *audit;
static cm_handle waiting, sink;
static int destroyed, refused;
static uint64_t first, last;

static void writes(cm_handle request) {
  GIVES(CM_OK, audit->write(H, CM_NO_HANDLE, T("testaudit.sign"), T(""), T("deed 1"), CM_AUDIT_ALLOWED, T(""), T("{\"pages\":3}"), &error));
  GIVES(CM_OK, audit->write(H, request, T("notary.refuse"), T("01K00000000000000000000000,01K00000000000000000000001"), T(""), CM_AUDIT_REFUSED, T("no"), T(""), &error));
  GIVES(CM_OK, audit->write(H, CM_NO_HANDLE, T("com.example.notary.fail"), T(""), T(""), CM_AUDIT_FAILED, T(""), T(""), &error));
  GIVES(CM_E_INVALID, audit->write(H, CM_NO_HANDLE, T("user.create"), T(""), T(""), CM_AUDIT_ALLOWED, T(""), T(""), &error));
  GIVES(CM_E_INVALID, audit->write(H, CM_NO_HANDLE, T("testaudit.sign"), T("me"), T(""), CM_AUDIT_ALLOWED, T(""), T(""), &error));
  GIVES(CM_E_INVALID, audit->write(H, CM_NO_HANDLE, T("testaudit.sign"), T(""), T(""), 3, T(""), T(""), &error));
  GIVES(CM_E_INVALID, audit->write(H, CM_NO_HANDLE, T("testaudit.sign"), T(""), T(""), CM_AUDIT_ALLOWED, T(""), T("{"), &error));
  GIVES(CM_E_GONE, audit->write(H, 1, T("testaudit.sign"), T(""), T(""), CM_AUDIT_ALLOWED, T(""), T(""), &error));
}

static cm_status record(void *context, uint64_t sequence, cm_text json) {
  (void)context;
  cm_buffer text = { (uint8_t *)(uintptr_t)json.data, json.size, json.size };
  HOLDS(last == 0 || sequence > last);
  if (first == 0) first = sequence;
  if (holds(&text, "\"target\":\"mark\"")) {
    /* Not now: it has to come again. */
    if (!refused++) return CM_E_BUSY;
    last = sequence;
    answer(waiting);
    return CM_OK;
  }
  last = sequence;
  return CM_OK;
}

static void end(void *context) { ++*(int *)context; }

static int check(cm_handle request, const char *step) {
  static cm_audit_callbacks callbacks = { CM_HEAD(cm_audit_callbacks, 1), record, end };
  static cm_audit_callbacks deaf = { CM_HEAD(cm_audit_callbacks, 1), NULL, end };
  cm_handle second;
  int count = 0;
  if (strcmp(step, "write") == 0) writes(request);
  else if (strcmp(step, "sink") == 0) {
    waiting = request;
    refused = 0;
    GIVES(CM_E_INVALID, audit->sink(H, &deaf, &count, &sink, &error));
    HOLDS(count == 1);
    GIVES(CM_OK, audit->sink(H, &callbacks, &destroyed, &sink, &error));
    GIVES(CM_E_EXISTS, audit->sink(H, &callbacks, &count, &second, &error));
    HOLDS(count == 2);
    GIVES(CM_OK, audit->write(H, CM_NO_HANDLE, T("testaudit.sign"), T(""), T("mark"), CM_AUDIT_ALLOWED, T(""), T(""), &error));
    return 0;
  } else if (strcmp(step, "began-at-the-beginning") == 0) HOLDS(first == 1);
  else if (strcmp(step, "went-on") == 0) HOLDS(first > 3);
  else if (strcmp(step, "remove") == 0) {
    GIVES(CM_OK, audit->sink_remove(H, sink));
    GIVES(CM_E_NOT_FOUND, audit->sink_remove(H, sink));
  } else if (strcmp(step, "destroyed") == 0) HOLDS(destroyed == 1);
  else HOLDS(!"a known step");
  return 1;
}

static cm_status on_load(void) {
  static cm_audit_callbacks callbacks = { CM_HEAD(cm_audit_callbacks, 1), record, end };
  int count = 0;
  audit = (const cm_audit *)interface(CM_INTERFACE_AUDIT, CM_OK);
  if (!audit) return CM_E_UNSUPPORTED;
  GIVES(CM_E_STATE, audit->sink(H, &callbacks, &count, &sink, &error));
  HOLDS(count == 1);
  return CM_OK;
}

static cm_status on_start(void) { return CM_OK; }
static void on_stop(void) {}
