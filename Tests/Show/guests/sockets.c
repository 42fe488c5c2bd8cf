/* Operators' WebSockets, streamed uploads and tickets, as a plugin uses them: plugins-1-operator-sockets. */
#define ID "com.guests.sockets"
#define AREA "sockets"
#define CAPABILITIES ",\"inline\""
#include "guest.h"
#include <pthread.h>

/* ---- echo; messages that find the peer full wait here until `writable`, and the peer is not read meanwhile ---- */
struct message {
  struct message *next;
  uint32_t kind;
  size_t size;
  uint8_t data[];
};
struct echo {
  cm_handle socket;
  struct message *first, **last;
};

static void echo_message(void *context, cm_handle socket, uint32_t kind, cm_bytes payload) {
  struct echo *echo = context;
  if (!echo->first && http->websocket_send(host->context, socket, kind, payload) != CM_E_BUSY) return;
  struct message *kept = malloc(sizeof *kept + payload.size);
  if (!kept) {
    http->websocket_close(host->context, socket, 1011, text("out of memory"));
    return;
  }
  /* Bounded: what has been read already still comes, nothing more. */
  http->websocket_receive(host->context, socket, 0);
  kept->next = NULL;
  kept->kind = kind;
  kept->size = payload.size;
  if (payload.size) memcpy(kept->data, payload.data, payload.size);
  *echo->last = kept;
  echo->last = &kept->next;
}
static void echo_writable(void *context, cm_handle socket) {
  struct echo *echo = context;
  while (echo->first) {
    struct message *message = echo->first;
    cm_bytes payload = {message->data, message->size};
    if (http->websocket_send(host->context, socket, message->kind, payload) == CM_E_BUSY) return;
    if (!(echo->first = message->next)) echo->last = &echo->first;
    free(message);
  }
  http->websocket_receive(host->context, socket, 1);
}
static void echo_destroy(void *context) {
  struct echo *echo = context;
  while (echo->first) {
    struct message *message = echo->first;
    echo->first = message->next;
    free(message);
  }
  free(echo);
}
static void echo_closed(void *context, cm_handle socket, uint32_t code, cm_text reason) {
  (void)context;
  (void)socket;
  (void)code;
  (void)reason;
}
static const cm_websocket_callbacks echo_socket = {CM_HEAD(cm_websocket_callbacks, 1), echo_message, echo_writable, echo_closed, echo_destroy};

static void echo_open(void *context, cm_handle request, cm_bytes body) {
  (void)context;
  (void)body;
  struct echo *echo = calloc(1, sizeof *echo);
  if (!echo) return;
  echo->last = &echo->first;
  /* Where it fails, `destroy` has ended the context already. */
  if (http->websocket_accept(host->context, request, &echo_socket, echo, &echo->socket, NULL) != CM_OK)
    http->respond_problem(host->context, request, 500, text("not-accepted"), text("the WebSocket was not accepted"));
}
static const cm_route_callbacks echo_route = {CM_HEAD(cm_route_callbacks, 1), echo_open, NULL, NULL, NULL, NULL};

/* ---- upload: counts and adds up, 64 KiB at a time ---- */
#define PIECE 65536
struct upload {
  cm_handle request;
  uint64_t count, sum;
};
static pthread_mutex_t uploads_lock = PTHREAD_MUTEX_INITIALIZER;
static struct upload uploads[64];

static struct upload *upload_of(cm_handle request, int fresh) {
  struct upload *found = NULL;
  pthread_mutex_lock(&uploads_lock);
  for (int i = 0; i < 64 && !found; i++)
    if (uploads[i].request == (fresh ? 0 : request)) found = &uploads[i];
  if (found && fresh) {
    memset(found, 0, sizeof *found);
    found->request = request;
  }
  pthread_mutex_unlock(&uploads_lock);
  return found;
}
static void upload_begin(void *context, cm_handle request, cm_bytes body) {
  (void)context;
  (void)body;
  if (!upload_of(request, 1)) {
    http->respond_problem(host->context, request, 503, text("busy"), text("64 uploads are under way"));
    return;
  }
  http->request_more(host->context, request, PIECE);
}
static void upload_piece(void *context, cm_handle request, cm_bytes piece, uint32_t last) {
  (void)context;
  struct upload *upload = upload_of(request, 0);
  if (!upload) return;
  for (uint64_t i = 0; i < piece.size; i++) upload->sum += piece.data[i];
  upload->count += piece.size;
  if (!last) {
    http->request_more(host->context, request, piece.size);
    return;
  }
  char line[96];
  snprintf(line, sizeof line, "{\"count\":%llu,\"sum\":%llu}", (unsigned long long)upload->count, (unsigned long long)upload->sum);
  upload->request = 0;
  answer(request, line);
}
static void upload_gone(void *context, cm_handle request) {
  (void)context;
  struct upload *upload = upload_of(request, 0);
  if (upload) upload->request = 0;
}
static const cm_route_callbacks upload_route = {CM_HEAD(cm_route_callbacks, 1), upload_begin, upload_piece, NULL, upload_gone, NULL};

/* ---- a ticket of the plugin's own ---- */
static void ticket_request(void *context, cm_handle request, cm_bytes body) {
  (void)context;
  (void)body;
  char bytes[128], line[192];
  cm_buffer buffer = {(uint8_t *)bytes, sizeof bytes, 0};
  if (http->ticket_issue(host->context, request, text("/api/v1/sockets/echo"), &buffer, NULL) != CM_OK) {
    http->respond_problem(host->context, request, 500, text("no-ticket"), text("no ticket was issued"));
    return;
  }
  snprintf(line, sizeof line, "{\"ticket\":\"%.*s\"}", (int)buffer.size, bytes);
  answer(request, line);
}
static const cm_route_callbacks ticket_route = {CM_HEAD(cm_route_callbacks, 1), ticket_request, NULL, NULL, NULL, NULL};

static cm_status add(const char *method, const char *name, const char *more, const cm_route_callbacks *callbacks, cm_error *error) {
  char specification[512];
  cm_handle handle;
  snprintf(specification, sizeof specification,
           "{\"method\":\"%s\",\"path\":\"/api/v1/sockets/%s\",\"right\":\"sockets.use\",\"audit\":\"sockets.%s\"%s,"
           "\"operation\":{\"summary\":\"%s\",\"responses\":{\"200\":{\"description\":\"Fine.\"}}}}",
           method, name, name, more, name);
  return http->route_add(host->context, text(specification), callbacks, NULL, &handle, error);
}

static cm_status load(void *context, const cm_host *given, cm_error *error) {
  (void)context;
  take_interfaces(given);
  cm_status status = add("WEBSOCKET", "echo", ",\"message_limit\":1048576", &echo_route, error);
  if (status == CM_OK) status = add("WEBSOCKET", "inline", ",\"message_limit\":1048576,\"inline\":true", &echo_route, error);
  if (status == CM_OK) status = add("PUT", "upload", ",\"stream_body\":true,\"body_limit\":67108864", &upload_route, error);
  if (status == CM_OK) status = add("POST", "ticket", "", &ticket_route, error);
  return status;
}
static cm_status start(void *context, cm_error *error) {
  (void)context;
  (void)error;
  return CM_OK;
}
static void stop(void *context) { (void)context; }

static const cm_plugin plugin = {CM_HEAD(cm_plugin, 1), NULL, ID, VERSION, load, start, NULL, NULL, stop};
const cm_plugin *cm_plugin_entry(uint32_t major, uint32_t minor) {
  (void)minor;
  return major == CM_ABI_MAJOR ? &plugin : NULL;
}
