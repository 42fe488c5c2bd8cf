/* cm.enrollment/1: tokens in whose name, the agent's file by range, and all of it only with the capability. */
#ifdef PLAIN
#define ID "com.example.outsider"
#define AREA "testoutsider"
#define CAPABILITIES "[\"http\"]"
#else
#define ID "com.example.registrar"
#define AREA "testenrollment"
#define CAPABILITIES "[\"http\",\"enrollment\"]"
#endif
#define VERSION "1.0.0"
#include "check.h"
NOTE(CAPABILITIES);

static const cm_enrollment *enrollment;
static char made[32];

/* The text of a member that is a string, or "". */
static const char *member(cm_buffer *json, const char *name, char *out, size_t room) {
  char key[64];
  size_t length = (size_t)snprintf(key, sizeof(key), "\"%s\":\"", name);
  const char *at = memmem(json->data, json->size, key, length);
  size_t count = 0;
  if (at)
    for (at += length; *at != '"' && count + 1 < room; at++) out[count++] = *at;
  out[count] = 0;
  return out;
}

static void tokens(cm_handle request) {
  char json[1024], small[100], token[256], expected[80];
  cm_buffer room = ROOM(json), little = ROOM(small);
  GIVES(CM_OK, enrollment->token_create(H, CM_NO_HANDLE, T("{\"ttl_s\":600,\"uses\":2,\"description\":\"by a test\",\"labels\":{\"site\":\"lab\"}}"), &room, &error));
  HOLDS(holds(&room, "\"expires_ms\":"));
  HOLDS(strlen(member(&room, "id", made, sizeof(made))) == 26);
  HOLDS(strncmp(member(&room, "token", token, sizeof(token)), "cmt1.", 5) == 0);
  cm_buffer core = ROOM(json);
  GIVES(CM_OK, enrollment->core(H, &core, &error));
  HOLDS(holds(&core, getenv("CM_AGENTS_URL") ? "\"url\":\"https://core.test:8443\"" : "\"url\":null"));
  HOLDS(strlen(member(&core, "fingerprint", expected, sizeof(expected))) == 64);
  HOLDS(strlen(token) > 64 && strcmp(token + strlen(token) - 64, expected) == 0);
  GIVES(CM_E_TOO_SMALL, enrollment->token_create(H, CM_NO_HANDLE, T("{\"description\":\"too little room\"}"), &little, &error));
  GIVES(CM_E_INVALID, enrollment->token_create(H, CM_NO_HANDLE, T("{\"ttl_s\":1}"), &room, &error));
  GIVES(CM_E_INVALID, enrollment->token_create(H, CM_NO_HANDLE, T("{\"secret\":1}"), &room, &error));
  GIVES(CM_E_INVALID, enrollment->token_create(H, CM_NO_HANDLE, T("no"), &room, &error));
  GIVES(CM_E_GONE, enrollment->token_create(H, 1, T("{}"), &room, &error));
  GIVES(CM_OK, enrollment->token_create(H, request, T("{\"description\":\"for a caller\"}"), &room, &error));
}

static void revokes(cm_handle request) {
  char json[1024], other[32];
  cm_buffer room = ROOM(json);
  GIVES(CM_OK, enrollment->token_revoke(H, CM_NO_HANDLE, T(made), &error));
  GIVES(CM_OK, enrollment->token_revoke(H, CM_NO_HANDLE, T(made), &error));
  GIVES(CM_E_INVALID, enrollment->token_revoke(H, CM_NO_HANDLE, T("nonsense"), &error));
  GIVES(CM_E_NOT_FOUND, enrollment->token_revoke(H, CM_NO_HANDLE, T("01K00000000000000000000000"), &error));
  /* In its own name only its own. */
  GIVES(CM_OK, enrollment->token_create(H, request, T("{}"), &room, &error));
  member(&room, "id", other, sizeof(other));
  GIVES(CM_E_DENIED, enrollment->token_revoke(H, CM_NO_HANDLE, T(other), &error));
  GIVES(CM_OK, enrollment->token_revoke(H, request, T(other), &error));
}

static void file(void) {
  static uint8_t piece[65536];
  char json[2048], hash[80], hex[65];
  cm_buffer room = ROOM(json);
  uint8_t digest[32];
  GIVES(CM_OK, enrollment->agent(H, &room, &error));
  HOLDS(strlen(member(&room, "sha256", hash, sizeof(hash))) == 64);
  HOLDS(holds(&room, "\"glibc\":\"2.") && holds(&room, "libc.so.6") && holds(&room, "\"version\":\""));
  HOLDS(strlen(member(&room, "machine", hex, sizeof(hex))) > 4);
  /* All of it, piece by piece, is the file with that hash. */
  const cm_crypto *crypto = (const cm_crypto *)interface(CM_INTERFACE_CRYPTO, CM_OK);
  static uint8_t whole[64 << 20];
  uint64_t at = 0;
  for (;;) {
    cm_buffer bytes = ROOM(piece);
    GIVES(CM_OK, enrollment->agent_read(H, T(hash), at, &bytes, &error));
    if (error.status != CM_OK || bytes.size == 0 || at + bytes.size > sizeof(whole)) break;
    memcpy(whole + at, piece, bytes.size);
    at += bytes.size;
  }
  GIVES(CM_OK, crypto->sha256(H, (cm_bytes){ whole, at }, digest));
  for (int i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
  HOLDS(strcmp(hex, hash) == 0);
  cm_buffer none = NO_ROOM, bytes = ROOM(piece);
  GIVES(CM_E_INVALID, enrollment->agent_read(H, T(hash), 0, &none, &error));
  GIVES(CM_E_GONE, enrollment->agent_read(H, T("00"), 0, &bytes, &error));
  CODE("agent-file-changed");
}

static int check(cm_handle request, const char *step) {
  char json[1024];
  cm_buffer room = ROOM(json);
  if (strcmp(step, "tokens") == 0) tokens(request);
  else if (strcmp(step, "revokes") == 0) revokes(request);
  else if (strcmp(step, "file") == 0) file();
  else if (strcmp(step, "stranger") == 0) {
    GIVES(CM_E_DENIED, enrollment->token_create(H, request, T("{}"), &room, &error));
    GIVES(CM_E_DENIED, enrollment->token_revoke(H, request, T(made), &error));
  } else if (strcmp(step, "missing") == 0) {
    GIVES(CM_E_NOT_FOUND, enrollment->agent(H, &room, &error));
    CODE("agent-file-missing");
  } else if (strcmp(step, "plain") == 0) interface(CM_INTERFACE_ENROLLMENT, CM_E_DENIED);
  else HOLDS(!"a known step");
  return 1;
}

static cm_status on_load(void) {
#ifndef PLAIN
  enrollment = (const cm_enrollment *)interface(CM_INTERFACE_ENROLLMENT, CM_OK);
  return enrollment ? CM_OK : CM_E_UNSUPPORTED;
#else
  return CM_OK;
#endif
}

static cm_status on_start(void) { return CM_OK; }
static void on_stop(void) {}
