/* cm.jobs/1: kinds, attempts, checkpoints that commit with changes of the store, retries, cancelling, upgrades. */
#define ID "com.example.worker"
#ifndef VERSION
#define VERSION "1.0.0"
#endif
#define AREA "testjobs"
#include "check.h"
NOTE("[\"http\",\"jobs\",\"store\"]");

static const cm_jobs *jobs;
static const cm_store *store;
static cm_handle waiting, held, copy_kind, once_kind, gone_kind;
static char id[27];
static int destroyed;

static int number(cm_text job) {
  char text[512] = "";
  memcpy(text, job.data, job.size < 511 ? job.size : 511);
  const char *found = strstr(text, "\"n\":");
  return found ? atoi(found + 4) : -1;
}

static void finish(cm_handle attempt, uint32_t outcome, const char *result) {
  GIVES(CM_OK, jobs->finish(H, attempt, outcome, T(result), T(outcome == CM_JOB_SUCCEEDED ? "" : "no-luck"), T("as told")));
  GIVES(CM_E_GONE, jobs->finish(H, attempt, outcome, T(""), T(""), T("")));
}

static void whole(cm_handle attempt) {
  static char big[70000];
  cm_handle transaction;
  memset(big, '1', sizeof(big));
  GIVES(CM_OK, jobs->progress(H, attempt, 500, T("half")));
  GIVES(CM_E_INVALID, jobs->progress(H, attempt, 1001, T("")));
  GIVES(CM_OK, jobs->log(H, attempt, T("a line")));
  GIVES(CM_E_INVALID, jobs->log(H, attempt, (cm_text){ big, 2049 }));
  GIVES(CM_OK, store->begin(H, &transaction));
  GIVES(CM_OK, store->put(H, transaction, T("done"), B("1")));
  GIVES(CM_OK, jobs->checkpoint(H, attempt, B("here"), transaction, &error));
  GIVES(CM_E_GONE, store->commit(H, transaction, &error));
  /* One commit: a checkpoint whose transaction does not go through is not kept either. */
  GIVES(CM_OK, store->begin(H, &transaction));
  GIVES(CM_OK, store->expect(H, transaction, T("done"), 0, B("")));
  GIVES(CM_OK, store->put(H, transaction, T("done"), B("2")));
  GIVES(CM_E_EXISTS, jobs->checkpoint(H, attempt, B("there"), transaction, &error));
  GIVES(CM_E_GONE, jobs->checkpoint(H, attempt, B("there"), transaction, &error));
  GIVES(CM_E_TOO_LARGE, jobs->checkpoint(H, attempt, (cm_bytes){ (uint8_t *)big, 65537 }, CM_NO_HANDLE, &error));
  GIVES(CM_E_TOO_LARGE, jobs->finish(H, attempt, CM_JOB_SUCCEEDED, (cm_text){ big, 65537 }, T(""), T("")));
  GIVES(CM_E_INVALID, jobs->finish(H, attempt, CM_JOB_SUCCEEDED, T("{"), T(""), T("")));
  GIVES(CM_E_INVALID, jobs->finish(H, attempt, 3, T(""), T(""), T("")));
  finish(attempt, CM_JOB_SUCCEEDED, "{\"n\":1}");
  GIVES(CM_E_GONE, jobs->progress(H, attempt, 1, T("")));
  GIVES(CM_E_GONE, jobs->log(H, attempt, T("late")));
  GIVES(CM_E_GONE, jobs->checkpoint(H, attempt, B(""), CM_NO_HANDLE, &error));
}

static void run(void *context, cm_handle attempt, cm_text job, cm_bytes checkpoint) {
  cm_buffer text = { (uint8_t *)(uintptr_t)job.data, job.size, job.size };
  int is_first = holds(&text, "\"attempt\":1,");
  (void)context;
  HOLDS(holds(&text, "\"id\":\"") && holds(&text, "\"fence\":"));
  switch (number(job)) {
  case 1:
    HOLDS(checkpoint.size == 0);
    whole(attempt);
    answer(waiting);
    break;
  case 2:
    if (is_first) {
      GIVES(CM_OK, jobs->checkpoint(H, attempt, B("half"), CM_NO_HANDLE, &error));
      finish(attempt, CM_JOB_FAILED, "");
      break;
    }
    HOLDS(checkpoint.size == 4 && memcmp(checkpoint.data, "half", 4) == 0);
    finish(attempt, CM_JOB_SUCCEEDED, "");
    answer(waiting);
    break;
  case 3:
    finish(attempt, CM_JOB_DEAD, "");
    answer(waiting);
    break;
  case 4:
    held = attempt;
    GIVES(CM_OK, jobs->cancel(H, CM_NO_HANDLE, T(id), &error));
    break;
  case 5:
    /* Held until this version goes; the next one does it. */
    held = attempt;
    if (VERSION[0] == '2') finish(attempt, CM_JOB_SUCCEEDED, "{\"version\":\"" VERSION "\"}");
    break;
  default:
    finish(attempt, CM_JOB_SUCCEEDED, "");
  }
}

static void cancel(void *context, cm_handle attempt) {
  (void)context;
  if (attempt != held) return;
  held = 0;
  finish(attempt, CM_JOB_FAILED, "");
  if (waiting) answer(waiting);
  waiting = 0;
}

static void end(void *context) { ++*(int *)context; }
static const cm_job_callbacks callbacks = { CM_HEAD(cm_job_callbacks, 1), run, cancel, end };

static cm_status submit(cm_handle actor, const char *job) {
  cm_buffer room = { (uint8_t *)id, 26, 0 };
  return jobs->submit(H, actor, T(job), &room, &error);
}

static void expect_state(const char *wanted) {
  static char bytes[65536];
  cm_buffer room = ROOM(bytes), none = NO_ROOM;
  GIVES(CM_OK, jobs->get(H, CM_NO_HANDLE, T(id), &room, &error));
  HOLDS(holds(&room, wanted));
  GIVES(CM_E_TOO_SMALL, jobs->get(H, CM_NO_HANDLE, T(id), &none, &error));
}

static void *from_elsewhere(void *context) {
  cm_handle kind;
  int count = 0;
  GIVES(CM_E_THREAD, jobs->kind_add(H, T("{}"), &callbacks, &count, &kind, &error));
  HOLDS(count == 1);
  GIVES(CM_E_THREAD, jobs->kind_remove(H, copy_kind));
  GIVES(CM_OK, submit(CM_NO_HANDLE, "{\"kind\":\"worker.copy\",\"arguments\":{\"n\":9}}"));
  return context;
}

static void refusals(void) {
  char text[16];
  cm_buffer small = ROOM(text);
  cm_handle kind;
  int count = 0;
  GIVES(CM_E_STATE, jobs->kind_add(H, T("{\"name\":\"worker.late\",\"guarantee\":\"idempotent\"}"), &callbacks, &count, &kind, &error));
  HOLDS(count == 1);
  GIVES(CM_E_TOO_SMALL, jobs->submit(H, CM_NO_HANDLE, T("{\"kind\":\"worker.copy\",\"arguments\":{\"n\":9}}"), &small, &error));
  HOLDS(small.size == 26);
  GIVES(CM_E_INVALID, submit(CM_NO_HANDLE, "{\"kind\":\"worker.copy\",\"arguments\":{\"n\":\"x\"}}"));
  GIVES(CM_E_INVALID, submit(CM_NO_HANDLE, "{\"kind\":\"worker.copy\",\"arguments\":{\"m\":1}}"));
  GIVES(CM_E_INVALID, submit(CM_NO_HANDLE, "{\"kind\":\"worker.copy\",\"prioriti\":1}"));
  GIVES(CM_E_INVALID, submit(CM_NO_HANDLE, "{"));
  GIVES(CM_E_DENIED, submit(CM_NO_HANDLE, "{\"kind\":\"command\",\"arguments\":{\"clients\":[],\"argv\":[\"/bin/true\"]}}"));
  GIVES(CM_E_DENIED, submit(CM_NO_HANDLE, "{\"kind\":\"worker.never\"}"));
  GIVES(CM_E_GONE, submit(1, "{\"kind\":\"worker.copy\"}"));
  GIVES(CM_E_NOT_FOUND, jobs->cancel(H, CM_NO_HANDLE, T("01K00000000000000000000000"), &error));
  GIVES(CM_E_NOT_FOUND, jobs->get(H, CM_NO_HANDLE, T("01K00000000000000000000000"), &small, &error));
  GIVES(CM_E_INVALID, jobs->get(H, CM_NO_HANDLE, T("x"), &small, &error));
  GIVES(CM_E_GONE, jobs->finish(H, 1, CM_JOB_SUCCEEDED, T(""), T(""), T("")));
}

static int check(cm_handle request, const char *step) {
  const char *one = NULL;
  if (strcmp(step, "run") == 0) one = "{\"kind\":\"worker.copy\",\"arguments\":{\"n\":1},\"idempotency_key\":\"first\"}";
  if (strcmp(step, "retry") == 0) one = "{\"kind\":\"worker.copy\",\"arguments\":{\"n\":2}}";
  if (strcmp(step, "dead") == 0) one = "{\"kind\":\"worker.once\",\"arguments\":{\"n\":3}}";
  if (strcmp(step, "cancel") == 0) one = "{\"kind\":\"worker.copy\",\"arguments\":{\"n\":4}}";
  if (one) {
    waiting = request;
    GIVES(CM_OK, submit(CM_NO_HANDLE, one));
    return 0;
  }
  if (strcmp(step, "succeeded") == 0) expect_state("\"state\":\"succeeded\"");
  else if (strcmp(step, "again") == 0) {
    /* The same key: the same job, which has run. */
    char before[27];
    memcpy(before, id, sizeof(before));
    GIVES(CM_OK, submit(CM_NO_HANDLE, "{\"kind\":\"worker.copy\",\"arguments\":{\"n\":1},\"idempotency_key\":\"first\"}"));
    HOLDS(memcmp(before, id, sizeof(before)) == 0);
    char bytes[8];
    cm_buffer room = ROOM(bytes);
    GIVES(CM_OK, store->get(H, T("done"), &room, &error));
    HOLDS(same(&room, "1"));
  } else if (strcmp(step, "is-dead") == 0) expect_state("\"state\":\"dead\"");
  else if (strcmp(step, "is-cancelled") == 0) expect_state("\"state\":\"cancelled\"");
  else if (strcmp(step, "hold") == 0) GIVES(CM_OK, submit(CM_NO_HANDLE, "{\"kind\":\"worker.copy\",\"arguments\":{\"n\":5}}"));
  else if (strcmp(step, "holds") == 0) HOLDS(held != 0);
  else if (strcmp(step, "refusals") == 0) refusals();
  else if (strcmp(step, "viewer") == 0) {
    GIVES(CM_E_DENIED, submit(request, "{\"kind\":\"worker.copy\",\"arguments\":{\"n\":9}}"));
    GIVES(CM_E_DENIED, jobs->cancel(H, request, T(id), &error));
  } else if (strcmp(step, "threads") == 0) elsewhere(from_elsewhere, NULL);
  else if (strcmp(step, "remove-kind") == 0) {
    GIVES(CM_OK, jobs->kind_remove(H, gone_kind));
    GIVES(CM_E_NOT_FOUND, jobs->kind_remove(H, gone_kind));
  } else if (strcmp(step, "destroyed") == 0) HOLDS(destroyed == 1);
  else HOLDS(!"a known step");
  return 1;
}

static cm_status on_load(void) {
  static int none;
  int count = 0;
  cm_handle kind;
  jobs = (const cm_jobs *)interface(CM_INTERFACE_JOBS, CM_OK);
  store = (const cm_store *)interface(CM_INTERFACE_STORE, CM_OK);
  if (!jobs || !store) return CM_E_UNSUPPORTED;
  GIVES(CM_OK, jobs->kind_add(
      H, T("{\"name\":\"worker.copy\",\"summary\":\"Copies.\",\"guarantee\":\"idempotent\",\"concurrency\":4,\"timeout_s\":60,"
           "\"retry\":{\"attempts\":3,\"first_s\":0.1,\"longest_s\":0.2},\"arguments\":{\"type\":\"object\","
           "\"properties\":{\"n\":{\"type\":\"integer\"}},\"required\":[\"n\"],\"additionalProperties\":false}}"),
      &callbacks, &none, &copy_kind, &error));
  GIVES(CM_OK, jobs->kind_add(H, T("{\"name\":\"com.example.worker.once\",\"guarantee\":\"at-most-once\"}"), &callbacks, &none, &kind, &error));
  GIVES(CM_OK, jobs->kind_add(H, T("{\"name\":\"worker.once\",\"guarantee\":\"at-most-once\"}"), &callbacks, &none, &once_kind, &error));
  GIVES(CM_OK, jobs->kind_add(H, T("{\"name\":\"worker.gone\",\"guarantee\":\"idempotent\"}"), &callbacks, &destroyed, &gone_kind, &error));
  GIVES(CM_E_EXISTS, jobs->kind_add(H, T("{\"name\":\"worker.once\",\"guarantee\":\"at-most-once\"}"), &callbacks, &count, &kind, &error));
  GIVES(CM_E_INVALID, jobs->kind_add(H, T("{\"name\":\"command\",\"guarantee\":\"idempotent\"}"), &callbacks, &count, &kind, &error));
  GIVES(CM_E_INVALID, jobs->kind_add(H, T("{\"name\":\"worker.x\"}"), &callbacks, &count, &kind, &error));
  GIVES(CM_E_INVALID, jobs->kind_add(H, T("{\"name\":\"worker.x\",\"guarantee\":\"maybe\"}"), &callbacks, &count, &kind, &error));
  GIVES(CM_E_INVALID, jobs->kind_add(H, T("{\"name\":\"worker.x\",\"guarantee\":\"idempotent\",\"arguments\":{\"oneOf\":[]}}"), &callbacks, &count, &kind, &error));
  HOLDS(count == 5);
  return failures[0] ? CM_E_INTERNAL : CM_OK;
}

static cm_status on_start(void) { return CM_OK; }
static void on_stop(void) {}
