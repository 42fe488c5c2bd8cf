/* client_manager_plugin.h: everything that a plugin of Client Manager needs. ABI 1.
 *
 * A plugin is a shared object NAME.so with an identity note in the ELF section "cm_plugin" and ONE exported function,
 * `cm_plugin_entry`. It runs inside the core's process: as fast as a function call, and as dangerous. It is checked,
 * granted and watched, but NOT SANDBOXED: a plugin can do whatever the core's user can do.
 *
 * This file is the reference. It compiles as C11 and C++11 (-pedantic), and imports into Swift and through bindgen.
 *
 * THREADS  Each function says where it may run.
 *   [own]     On the plugin's own thread, which the core makes: never two at a time, never on a loop of the core. What the
 *             core calls there may block for a while (30 s, then the plugin is fenced), and may call everything.
 *   [any]     Called by the plugin from any thread between `load` and the end of `stop`. Never blocks.
 *   [inline]  Called by the core on one of its event loops: one at a time for one handle, at the same time for different
 *             ones. It must return within 5 ms, must not block, and may call only functions marked [any]. Needs the
 *             capability "inline".
 *   [wait]    Called by the plugin from any of its threads, but not inside an [inline] callback: it may wait for the disk. Where
 *             the core does not get to it in 25 s it answers CM_E_TIMEOUT, and nobody knows then whether it was done.
 *   Functions called on a thread where they may not run answer CM_E_THREAD and are reported by name.
 *   A function of a service runs on whatever thread its caller is, at the same time as others: the publisher guards its
 *   own state, and calls only functions marked [any] from there.
 *
 * MEMORY   Arguments are borrowed for the length of the call, in both directions; keep a copy of what you need later.
 *   Whoever allocated frees; nothing is freed across the boundary. Results of variable size go into a `cm_buffer` of the
 *   caller. Tables that a plugin hands over (`cm_plugin`, `cm_…_callbacks`) are copied by the core before the call returns.
 *   A callback's `context` belongs to the plugin; `destroy(context)`, where set, is called exactly once when the core has
 *   forgotten it. When the registration failed that is before it returns, on the calling thread.
 *
 * ERRORS   Negative `cm_status` is failure. `error`, where it is a parameter, may be NULL; else it is filled on failure.
 *
 * UNWINDING  No C++ exception, Rust panic, Swift error or longjmp may cross this boundary: it would end the process.
 *
 * LOCKS    The core holds none while it calls a plugin, and a plugin must hold none of its own while it calls the core.
 *   Removing a registration from inside its own callback is allowed and takes effect when the callback returns.
 *
 * GROWTH   Every table begins with a `cm_head`, filled by its owner with the size that the owner compiled. Fields are only
 *   appended. Use one only through CM_HAS. An incompatible change gets a new identifier: "cm.log/1" becomes "cm.log/2".
 *
 * PHASES   load     publish services, register routes, job kinds and metrics; read the configuration. Acquire nothing.
 *          start    everything that is required is published: acquire services, subscribe, begin to work.
 *          quiesce  (an upgrade or a switch-off begins) start nothing new by yourself; finish what you have.
 *          resume   (the upgrade failed) go on as after start.
 *          stop     end your threads, release what you hold. Published functions answer CM_E_GONE from now on and stay
 *                   callable for the life of the process: the image is never unmapped. No call into the core may follow.
 *   What fails in `load` or `start` need not be undone by the plugin: the core takes back all that it registered.
 */
#ifndef CLIENT_MANAGER_PLUGIN_H
#define CLIENT_MANAGER_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#if defined(__clang__)
#  if defined(__STDC_VERSION__) || defined(__cplusplus)
#    pragma clang diagnostic push
#    pragma clang diagnostic ignored "-Wnullability-extension"
#  endif
#  define CM_NULLABLE _Nullable
#  define CM_NONNULL _Nonnull
#else
#  define CM_NULLABLE
#  define CM_NONNULL
#endif
#define CM_EXPORT __attribute__((visibility("default")))
#if defined(__cplusplus)
#  define CM_STATIC_ASSERT(condition, text) static_assert(condition, text)
extern "C" {
#else
#  define CM_STATIC_ASSERT(condition, text) _Static_assert(condition, text)
#endif

#define CM_ABI_MAJOR 1u
/* Counts what was appended since ABI 1.0; information only: compatibility is decided field by field. */
#define CM_ABI_MINOR 3u

/* ---- the identity note ------------------------------------------------------------------------------------------ *
 * Text in the ELF section "cm_plugin", read without running any code: the line "client-manager-plugin 1" (the ABI's major
 * version), then one JSON object, then perhaps zero bytes; at most 64 KiB:
 *
 *   "id"            reverse domain name, [a-z0-9.-]{3,64}, for example "com.example.hello"
 *   "version"       "MAJOR.MINOR.PATCH"
 *   "name", "summary"
 *   "provides"      services that it publishes in `load`, for example ["com.example.greeter/1"]
 *   "requires"      services without which it cannot start; it waits for them and stops when one goes away
 *   "wants"         services that it uses where they are there
 *   "capabilities"  what it asks for, see CM_CAPABILITY_…
 *   "routes"        areas of the API that it serves: ["hello"] is /api/v1/hello and everything below it
 *   "configuration" a JSON schema of its section `plugins.settings.ID` in the core's configuration
 *   "libraries"     shared libraries beyond libc that must be there, for messages: ["libcurl.so.4"]
 *
 * In C and C++: CM_PLUGIN_NOTE("{\"id\":\"com.example.hello\",…}") once, at file level. In Rust a static byte array with
 * #[used] and #[link_section = "cm_plugin"]. In Swift a C file beside the sources. */
#define CM_PLUGIN_NOTE_SECTION "cm_plugin"
#if defined(__has_attribute)
#  if __has_attribute(retain)
#    define CM_RETAIN __attribute__((retain))
#  endif
#endif
#ifndef CM_RETAIN
#  define CM_RETAIN
#endif
#define CM_PLUGIN_NOTE(json)                                                                          \
  __attribute__((visibility("hidden"))) extern const char cm_plugin_note_[];                          \
  __attribute__((section("cm_plugin"), used)) CM_RETAIN const char cm_plugin_note_[] =                 \
      "client-manager-plugin 1\n" json

/* ---- scalars ---------------------------------------------------------------------------------------------------- */

typedef int32_t cm_status;
#define CM_OK            ((cm_status)0)
#define CM_E_INVALID     ((cm_status)-1)  /* an argument is wrong; the error says which */
#define CM_E_DENIED      ((cm_status)-2)  /* not granted to the plugin, or not allowed to the actor */
#define CM_E_NOT_FOUND   ((cm_status)-3)
#define CM_E_EXISTS      ((cm_status)-4)  /* taken, or in conflict with what is there */
#define CM_E_BUSY        ((cm_status)-5)  /* a bound is reached: not taken; try again when told, or later */
#define CM_E_TOO_SMALL   ((cm_status)-6)  /* the buffer is too small; its `size` says what is needed */
#define CM_E_TOO_LARGE   ((cm_status)-7)
#define CM_E_GONE        ((cm_status)-8)  /* handle, peer, service or plugin has ended */
#define CM_E_STATE       ((cm_status)-9)  /* not in this phase, or done already */
#define CM_E_THREAD      ((cm_status)-10) /* an [own] function called on another thread */
#define CM_E_UNSUPPORTED ((cm_status)-11)
#define CM_E_TIMEOUT     ((cm_status)-12)
#define CM_E_UNAVAILABLE ((cm_status)-13) /* offline, closed or full at the moment */
#define CM_E_INTERNAL    ((cm_status)-14)

/* Names something that the core keeps for the plugin. Never 0, never used twice in one process. */
typedef uint64_t cm_handle;
#define CM_NO_HANDLE ((cm_handle)0)

/* UTF-8, not terminated. `data` may be NULL where `size` is 0. */
typedef struct cm_text {
  const char *CM_NULLABLE data;
  uint64_t size;
} cm_text;

typedef struct cm_bytes {
  const uint8_t *CM_NULLABLE data;
  uint64_t size;
} cm_bytes;

/* Room for a result, owned by the caller. Afterwards `size` is the size of the whole result; where it is more than
 * `capacity` nothing was written and the call answers CM_E_TOO_SMALL. `data` may be NULL with capacity 0: asks for the size. */
typedef struct cm_buffer {
  uint8_t *CM_NULLABLE data;
  uint64_t capacity;
  uint64_t size;
} cm_buffer;

/* Why a call failed; owned by the caller, fixed for ever. `code` is for machines (Docs/errors.md), `text` for people. */
typedef struct cm_error {
  cm_status status;
  uint32_t http_status; /* what a route would answer: 404, 409, …; 0 for none */
  uint32_t code_size;
  uint32_t text_size;
  char code[64];
  char text[432];
} cm_error;

typedef struct cm_head {
  uint32_t size;     /* sizeof the whole table as its owner compiled it */
  uint32_t revision; /* the number after the slash of its identifier; 1 for tables without one */
} cm_head;

/* True when `field` lies inside what the owner of the table filled in, and is set. */
#define CM_HAS(table, field)                                                                                     \
  ((table) && (table)->head.size >= offsetof(__typeof__(*(table)), field) + sizeof((table)->field) && (table)->field)

#define CM_HEAD(type, revision_) { (uint32_t)sizeof(type), (revision_) }

/* ---- capabilities ----------------------------------------------------------------------------------------------- *
 * Granted to every plugin that is let in (the operator's configured default): */
#define CM_CAPABILITY_HTTP        "http"         /* routes in the areas of its note */
#define CM_CAPABILITY_EVENTS      "events"
#define CM_CAPABILITY_JOBS        "jobs"
#define CM_CAPABILITY_STORE       "store"
#define CM_CAPABILITY_CLIENTS     "clients.read"
#define CM_CAPABILITY_AUDIT       "audit.write"
/* Granted one by one, by `cmctl plugins approve` or by the catalogue of first-party plugins: */
#define CM_CAPABILITY_INLINE      "inline"       /* callbacks on the core's loops */
#define CM_CAPABILITY_LABELS      "clients.write"
#define CM_CAPABILITY_COMMANDS    "commands"
#define CM_CAPABILITY_CHANNELS    "channels"
#define CM_CAPABILITY_SECRETS     "secrets"      /* sealing under the core's master key */
#define CM_CAPABILITY_AUDIT_READ  "audit.read"
#define CM_CAPABILITY_FILES       "files"        /* the managed store, transfers, and files of clients */
#define CM_CAPABILITY_ENROLLMENT  "enrollment"   /* tokens that let machines in, and the agent's file */
#define CM_CAPABILITY_PRIVATE     "private-files" /* places files in the memory of clients */
#define CM_CAPABILITY_FILTER      "output.filter" /* sees and changes all output of commands, before it is kept */
/* log, configuration, services, metrics, crypto (hashes, random) and executor need none. */

/* ---- the host --------------------------------------------------------------------------------------------------- *
 * The first argument of every host function is `host->context`. */

typedef struct cm_host_context cm_host_context;

typedef struct cm_host {
  cm_head head;
  cm_host_context *CM_NONNULL context;
  uint32_t abi_major;
  uint32_t abi_minor;
  /* [any] One of the tables below by its identifier, for example "cm.log/1". The table lives as long as the process.
   * CM_E_NOT_FOUND: this core does not have it. CM_E_DENIED: its capability is not granted. CM_E_UNSUPPORTED: the core's
   * table is smaller than `minimum_size`, the part that the plugin cannot do without (0: none). */
  cm_status (*CM_NULLABLE interface_get)(cm_host_context *CM_NONNULL host, cm_text identifier, uint32_t minimum_size,
                                         const void *CM_NULLABLE *CM_NONNULL table, cm_error *CM_NULLABLE error);
} cm_host;

/* ---- the plugin ------------------------------------------------------------------------------------------------- */

typedef struct cm_plugin {
  cm_head head;
  void *CM_NULLABLE context;
  const char *CM_NONNULL id;      /* as in the note; static storage */
  const char *CM_NONNULL version; /* as in the note; static storage */
  /* [own] `host` lives as long as the process. */
  cm_status (*CM_NULLABLE load)(void *CM_NULLABLE context, const cm_host *CM_NONNULL host, cm_error *CM_NULLABLE error);
  /* [own] */
  cm_status (*CM_NULLABLE start)(void *CM_NULLABLE context, cm_error *CM_NULLABLE error);
  /* [own] Optional. */
  cm_status (*CM_NULLABLE quiesce)(void *CM_NULLABLE context, cm_error *CM_NULLABLE error);
  /* [own] Optional. */
  cm_status (*CM_NULLABLE resume)(void *CM_NULLABLE context, cm_error *CM_NULLABLE error);
  /* [own] Called once for each `load` that succeeded. */
  void (*CM_NULLABLE stop)(void *CM_NULLABLE context);
} cm_plugin;

/* The only exported symbol. It must be quick and without side effects (no threads, files, sockets): it also runs in a
 * throw-away process that looks at the plugin. NULL: the plugin cannot work with this major version of the ABI.
 * The table belongs to the plugin and stays valid. */
CM_EXPORT const cm_plugin *CM_NULLABLE cm_plugin_entry(uint32_t host_abi_major, uint32_t host_abi_minor);

/* ---- cm.log/1 --------------------------------------------------------------------------------------------------- */

#define CM_INTERFACE_LOG "cm.log/1"
#define CM_LOG_DEBUG   0u
#define CM_LOG_INFO    1u
#define CM_LOG_WARNING 2u
#define CM_LOG_ERROR   3u

typedef struct cm_log {
  cm_head head;
  /* [any] One line of the core's structured log. `event` is a short stable name ("sync.finished"), `fields` a JSON object or
   * empty. At most 4 KiB; at most 200 lines a second per plugin, what is over is counted and said once. Never a secret. */
  cm_status (*CM_NULLABLE write)(cm_host_context *CM_NONNULL host, uint32_t level, cm_text event, cm_text fields);
  /* [any] 1 when lines of this level are written at the moment. */
  int32_t (*CM_NULLABLE is_enabled)(cm_host_context *CM_NONNULL host, uint32_t level);
} cm_log;

/* ---- cm.config/1 ------------------------------------------------------------------------------------------------ */

#define CM_INTERFACE_CONFIG "cm.config/1"

typedef struct cm_config {
  cm_head head;
  /* [any] The plugin's own section as a JSON object, checked against the schema of its note before `load`; "{}" if there is
   * none. */
  cm_status (*CM_NULLABLE read)(cm_host_context *CM_NONNULL host, cm_buffer *CM_NONNULL json);
  /* [any] A string, number or boolean of that section as text, by JSON pointer (RFC 6901): "/greeting". For those who have no
   * JSON reader. CM_E_NOT_FOUND: the section has no such member. */
  cm_status (*CM_NULLABLE get)(cm_host_context *CM_NONNULL host, cm_text pointer, cm_buffer *CM_NONNULL text);
} cm_config;

/* ---- cm.services/1: plugins share tables with each other --------------------------------------------------------- *
 * The pointer that `acquire` gives is the publisher's own table: calls go straight to it, nothing is wrapped. */

#define CM_INTERFACE_SERVICES "cm.services/1"

/* One acquired service; allocated by the caller, who sets head. */
typedef struct cm_lease {
  cm_head head;
  cm_handle handle;
  const void *CM_NULLABLE table;   /* begins with a cm_head of the publisher */
  void *CM_NULLABLE context;       /* pass it as the first argument of the table's functions */
  const uint32_t *CM_NULLABLE valid; /* 1 while the lease holds; the core clears it when it revokes the lease */
} cm_lease;

/* The words `valid` of a lease and `stopped` of a guard, for languages that do not see the macros below. */
static inline uint32_t cm_word_load(const uint32_t *CM_NONNULL word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
static inline void cm_word_store(uint32_t *CM_NONNULL word, uint32_t value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }

/* Whether the lease still holds. A call that has begun may end with CM_E_GONE all the same. */
#define CM_LEASE_VALID(lease) ((lease)->valid && cm_word_load((lease)->valid) != 0u)

typedef struct cm_lease_callbacks {
  cm_head head;
  /* [own] The publisher is about to stop: finish, and `release` the lease within 30 s; then it is revoked and the plugin is
   * named. */
  void (*CM_NULLABLE recalled)(void *CM_NULLABLE context, cm_handle lease);
  /* [own] Last call. */
  void (*CM_NULLABLE destroy)(void *CM_NULLABLE context);
} cm_lease_callbacks;

typedef struct cm_service_callbacks {
  cm_head head;
  /* [own] A service came (`available` 1) or is about to go (0). Also called once for each that is there already. */
  void (*CM_NULLABLE changed)(void *CM_NULLABLE context, cm_text service, uint32_t available);
  /* [own] Last call. */
  void (*CM_NULLABLE destroy)(void *CM_NULLABLE context);
} cm_service_callbacks;

typedef struct cm_services {
  cm_head head;
  /* [own] In `load`, or later. `service` is "reverse.domain.name/REVISION" and stands in the note's "provides". `table` begins
   * with a cm_head and, with `context`, stays valid for the life of the process. CM_E_EXISTS: somebody else provides it. */
  cm_status (*CM_NULLABLE publish)(cm_host_context *CM_NONNULL host, cm_text service, const cm_head *CM_NONNULL table,
                                   void *CM_NULLABLE table_context, cm_error *CM_NULLABLE error);
  /* [own] Recalls all leases, then takes the service back. */
  cm_status (*CM_NULLABLE withdraw)(cm_host_context *CM_NONNULL host, cm_text service);
  /* [own] From `start` on. CM_E_NOT_FOUND: nobody provides it now. CM_E_UNSUPPORTED: the table is smaller than `minimum_size`.
   * CM_E_DENIED: the note names it neither in "requires" nor in "wants". */
  cm_status (*CM_NULLABLE acquire)(cm_host_context *CM_NONNULL host, cm_text service, uint32_t minimum_size,
                                   const cm_lease_callbacks *CM_NULLABLE callbacks, void *CM_NULLABLE context,
                                   cm_lease *CM_NONNULL lease, cm_error *CM_NULLABLE error);
  /* [any] Gives a lease back; its table must not be called afterwards. CM_E_NOT_FOUND: given back already. */
  cm_status (*CM_NULLABLE release)(cm_host_context *CM_NONNULL host, cm_handle lease);
  /* [own] Hears of one service coming and going. */
  cm_status (*CM_NULLABLE watch)(cm_host_context *CM_NONNULL host, cm_text service,
                                 const cm_service_callbacks *CM_NONNULL callbacks, void *CM_NULLABLE context,
                                 cm_handle *CM_NONNULL watch, cm_error *CM_NULLABLE error);
  /* [any] */
  cm_status (*CM_NULLABLE unwatch)(cm_host_context *CM_NONNULL host, cm_handle watch);
} cm_services;

/* The publisher's duty: every function of a published table begins with this guard. `stopped` is a uint32_t of the plugin,
 * set to 1 with CM_STOPPED at the beginning of `stop`. */
#define CM_GUARD(stopped)                              \
  do {                                                 \
    if (cm_word_load(&(stopped))) return CM_E_GONE;    \
  } while (0)
#define CM_STOPPED(stopped) cm_word_store(&(stopped), 1u)
#define CM_STARTED(stopped) cm_word_store(&(stopped), 0u)

/* ---- cm.http/1: routes in the one API --------------------------------------------------------------------------- *
 * Authentication, rate limits, the right and the audit record are done before the plugin sees a request. */

#define CM_INTERFACE_HTTP "cm.http/1"

/* What `request_get` answers. `name` is used where the comment says so. */
#define CM_REQUEST_METHOD      0u
#define CM_REQUEST_PATH        1u
#define CM_REQUEST_PARAMETER   2u /* `name`: of the pattern, without braces */
#define CM_REQUEST_QUERY       3u /* `name`: first value; CM_E_NOT_FOUND if it is not there */
#define CM_REQUEST_HEADER      4u /* `name`: lower case */
#define CM_REQUEST_ACTOR       5u /* who asks: the principal's id */
#define CM_REQUEST_ADDRESS     6u
#define CM_REQUEST_CORRELATION 7u

typedef struct cm_route_callbacks {
  cm_head head;
  /* [own], [inline] with "inline": true. A request for the route. `body` is whole, or empty for a route that streams it.
   * The plugin answers now or later, from any thread, exactly once, within the route's time; else the core answers 504. */
  void (*CM_NULLABLE request)(void *CM_NULLABLE context, cm_handle request, cm_bytes body);
  /* As `request`. Optional, for "stream_body": the next piece; `last` is 1 with the last one, which may be empty. More follows
   * after `request_more`. */
  void (*CM_NULLABLE body)(void *CM_NULLABLE context, cm_handle request, cm_bytes piece, uint32_t last);
  /* As `request`. Optional: what waited for a slow reader is low again: go on with `respond_write`. */
  void (*CM_NULLABLE writable)(void *CM_NULLABLE context, cm_handle request);
  /* As `request`. Optional: the peer left or the time is over before the answer ended. The handle is dead. */
  void (*CM_NULLABLE gone)(void *CM_NULLABLE context, cm_handle request);
  /* [own] Last call, after the route was removed and its requests have ended. */
  void (*CM_NULLABLE destroy)(void *CM_NULLABLE context);
} cm_route_callbacks;

#define CM_MESSAGE_BINARY 0u
#define CM_MESSAGE_TEXT   1u

typedef struct cm_websocket_callbacks {
  cm_head head;
  /* [own], [inline] where the route has "inline": true. One whole message. */
  void (*CM_NULLABLE message)(void *CM_NULLABLE context, cm_handle socket, uint32_t kind, cm_bytes payload);
  /* As `message`. Optional: what waits for the peer is low again. */
  void (*CM_NULLABLE writable)(void *CM_NULLABLE context, cm_handle socket);
  /* As `message`. It has ended, by whichever side; `code` as in RFC 6455 §7.4. The handle is dead. */
  void (*CM_NULLABLE closed)(void *CM_NULLABLE context, cm_handle socket, uint32_t code, cm_text reason);
  /* [own] Last call. */
  void (*CM_NULLABLE destroy)(void *CM_NULLABLE context);
} cm_websocket_callbacks;

typedef struct cm_http {
  cm_head head;
  /* [own] In `load`. `specification` is a JSON object:
   *   "method"       "GET", "POST", "PUT", "PATCH", "DELETE"; "WEBSOCKET" for operators' WebSockets
   *   "path"         below one of the note's areas: "/api/v1/hello/{name}"
   *   "right"        "hello.read": area.verb; who may call it is the operator's decision, by roles
   *   "operation"    the OpenAPI 3.1 operation object: summary, responses (at least one), parameters, requestBody
   *   "body_limit"   bytes, default 1 MiB, at most 64 MiB; with "stream_body": true at most 2^53 and delivered in pieces
   *   "timeout_s"    default 30, at most 3,600
   *   "audit"        "hello.greet": each call leaves an audit record of this action before the plugin sees it
   *   "inline"       true: callbacks on the loop; needs the capability
   *   "message_limit" WebSocket: bytes of one message, default 64 KiB, at most 1 MiB */
  cm_status (*CM_NULLABLE route_add)(cm_host_context *CM_NONNULL host, cm_text specification,
                                     const cm_route_callbacks *CM_NONNULL callbacks, void *CM_NULLABLE context,
                                     cm_handle *CM_NONNULL route, cm_error *CM_NULLABLE error);
  /* [own] Requests that were accepted are still finished. */
  cm_status (*CM_NULLABLE route_remove)(cm_host_context *CM_NONNULL host, cm_handle route);
  /* [own] A page or module of the console, served under /console/plugins/ID/PATH. `content` is copied; at most 4 MiB. */
  cm_status (*CM_NULLABLE asset_add)(cm_host_context *CM_NONNULL host, cm_text path, cm_text content_type, cm_bytes content,
                                     cm_error *CM_NULLABLE error);

  /* [any] Until the request has been answered. */
  cm_status (*CM_NULLABLE request_get)(cm_host_context *CM_NONNULL host, cm_handle request, uint32_t what, cm_text name,
                                       cm_buffer *CM_NONNULL value);
  /* [any] 1: the principal has this right (on this client, where `client` is not empty). */
  int32_t (*CM_NULLABLE request_may)(cm_host_context *CM_NONNULL host, cm_handle request, cm_text right, cm_text client);
  /* [any] For "stream_body": up to `bytes` more may be delivered. */
  cm_status (*CM_NULLABLE request_more)(cm_host_context *CM_NONNULL host, cm_handle request, uint64_t bytes);

  /* [any] The whole answer. `headers` are lines "name: value" with line feeds between. CM_E_STATE: answered already. */
  cm_status (*CM_NULLABLE respond)(cm_host_context *CM_NONNULL host, cm_handle request, uint32_t status, cm_text headers,
                                   cm_bytes body);
  /* [any] A problem document (RFC 9457). */
  cm_status (*CM_NULLABLE respond_problem)(cm_host_context *CM_NONNULL host, cm_handle request, uint32_t status, cm_text code,
                                           cm_text detail);
  /* [any] Begins a streamed answer; `length` -1: not known. */
  cm_status (*CM_NULLABLE respond_begin)(cm_host_context *CM_NONNULL host, cm_handle request, uint32_t status,
                                         cm_text headers, int64_t length);
  /* [any] CM_E_BUSY: not taken, `writable` will follow. CM_E_GONE: nobody reads any more. */
  cm_status (*CM_NULLABLE respond_write)(cm_host_context *CM_NONNULL host, cm_handle request, cm_bytes piece);
  /* [any] */
  cm_status (*CM_NULLABLE respond_end)(cm_host_context *CM_NONNULL host, cm_handle request);
  /* [any] Breaks a begun answer off, so that its reader sees that it is not whole. */
  cm_status (*CM_NULLABLE respond_abort)(cm_host_context *CM_NONNULL host, cm_handle request);

  /* [any] For routes "WEBSOCKET": answers the request with the upgrade. Afterwards `request` is dead, `socket` lives. */
  cm_status (*CM_NULLABLE websocket_accept)(cm_host_context *CM_NONNULL host, cm_handle request,
                                            const cm_websocket_callbacks *CM_NONNULL callbacks, void *CM_NULLABLE context,
                                            cm_handle *CM_NONNULL socket, cm_error *CM_NULLABLE error);
  /* [any] CM_E_BUSY: over 256 KiB wait for the peer; not taken, `writable` will follow. */
  cm_status (*CM_NULLABLE websocket_send)(cm_host_context *CM_NONNULL host, cm_handle socket, uint32_t kind,
                                          cm_bytes payload);
  /* [any] 0: no more messages are read from the peer until 1. */
  cm_status (*CM_NULLABLE websocket_receive)(cm_host_context *CM_NONNULL host, cm_handle socket, uint32_t on);
  /* [any] `closed` follows. */
  cm_status (*CM_NULLABLE websocket_close)(cm_host_context *CM_NONNULL host, cm_handle socket, uint32_t code, cm_text reason);
  /* [any] A ticket with which a browser, which cannot send headers, opens the WebSocket `path` once within 30 s, as the
   * principal of `request`: append "?ticket=" and the text. */
  cm_status (*CM_NULLABLE ticket_issue)(cm_host_context *CM_NONNULL host, cm_handle request, cm_text path,
                                        cm_buffer *CM_NONNULL ticket, cm_error *CM_NULLABLE error);
} cm_http;

/* ---- actors ----------------------------------------------------------------------------------------------------- *
 * Where a function has `actor`, it is in whose name the core acts: a live request, WebSocket or job attempt stands for its
 * principal, whose rights are checked; CM_NO_HANDLE is the plugin itself, "plugin:ID" in the audit trail, which may do what
 * its capabilities allow: with "clients.read" see all clients, with "clients.write" set labels, with "commands" run what the
 * command policy allows to administrators or to the user "plugin:ID", with "files" use all files of the store and of
 * all clients, with "jobs" work with jobs of its own kinds, with "private-files" place them on all clients. A handle that
 * stands for nobody any more is CM_E_GONE. */

/* ---- cm.clients/1 (clients.read; labels: clients.write) ---------------------------------------------------------- */

#define CM_INTERFACE_CLIENTS "cm.clients/1"

typedef struct cm_clients {
  cm_head head;
  /* [wait] One client as GET /api/v1/clients/{id} shows it, JSON. */
  cm_status (*CM_NULLABLE get)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text client, cm_buffer *CM_NONNULL json,
                               cm_error *CM_NULLABLE error);
  /* [any] Ids of the clients that a selector finds (empty: all), JSON {"items": ["…"], "next": "…"|null}; `after` is a `next`
   * or empty; at most `limit` (1 to 10,000). */
  cm_status (*CM_NULLABLE select)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text selector, cm_text after,
                                  uint32_t limit, cm_buffer *CM_NONNULL json, cm_error *CM_NULLABLE error);
  /* [any] 1: the client is connected now. */
  int32_t (*CM_NULLABLE is_online)(cm_host_context *CM_NONNULL host, cm_text client);
  /* [wait] Sets labels ({"key": "value"}, null removes), audited; returns when it is durable. */
  cm_status (*CM_NULLABLE set_labels)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text client, cm_text labels,
                                      cm_error *CM_NULLABLE error);
  /* [any] As `select`, for what must not be decided by what a machine says about itself: a selector that asks for more than labels
   * and ids is CM_E_INVALID with the code "selector-not-asserted". Since ABI 1.1. */
  cm_status (*CM_NULLABLE select_asserted)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text selector, cm_text after,
                                           uint32_t limit, cm_buffer *CM_NONNULL json, cm_error *CM_NULLABLE error);
} cm_clients;

/* ---- cm.commands/1 (commands; filter_…: output.filter) ------------------------------------------------------------- *
 * The table is there for both capabilities; each function needs its own, else CM_E_DENIED. */

#define CM_INTERFACE_COMMANDS "cm.commands/1"
#define CM_OUTPUT_LAST 1u    /* the stream has ended: nothing is held back any more */
#define CM_OUTPUT_HELD 4096u /* bytes of a stream that a filter may hold back */

typedef struct cm_command_callbacks {
  cm_head head;
  /* [own] One target has reached its final state; `target` is its JSON as in the API. */
  void (*CM_NULLABLE target_ended)(void *CM_NULLABLE context, cm_handle command, cm_text target);
  /* [own] All targets have. */
  void (*CM_NULLABLE ended)(void *CM_NULLABLE context, cm_handle command, cm_text result);
  /* [own] Last call. */
  void (*CM_NULLABLE destroy)(void *CM_NULLABLE context);
} cm_command_callbacks;

/* What a filter is shown; its owner is the core. */
typedef struct cm_output_piece {
  cm_head head;
  cm_text command; /* ids */
  cm_text client;
  uint32_t stream; /* 1 output, 2 errors */
  uint32_t flags;  /* CM_OUTPUT_LAST, or 0; flags that you do not know may come */
  uint64_t offset; /* of the first byte in the stream, as the program wrote it */
} cm_output_piece;

typedef struct cm_output_filter_callbacks {
  cm_head head;
  /* [inline] The next bytes of one stream of one client, before they are kept and before anybody sees them. They begin with
   * those that were held back the last time, as you left them. Overwrite them where they stand; the length stays, and a write
   * beside them counts as a failure. Answer how many bytes at the end are to be shown again with what follows, because they may
   * be the beginning of something: 0 to CM_OUTPUT_HELD. Anything else, for example a negative cm_status, says that you could not
   * do it: this and the rest of the stream are kept as asterisks. Watchers wait for what you hold back, so hold back little.
   * After a restart of the core a stream begins again at offset 0; that a last piece comes is not promised. */
  int64_t (*CM_NULLABLE filter)(void *CM_NULLABLE context, const cm_output_piece *CM_NONNULL piece,
                                uint8_t *CM_NULLABLE bytes, uint64_t size);
  /* [own] Last call. */
  void (*CM_NULLABLE destroy)(void *CM_NULLABLE context);
} cm_output_filter_callbacks;

typedef struct cm_commands {
  cm_head head;
  /* [wait] `specification` is the body of POST /api/v1/commands without "wait_s". Returns when the command is durably accepted;
   * `id` gets its id, 26 bytes; where they do not fit nothing is done. Policy and rights of the actor apply. `callbacks` may
   * be NULL: then, and for more than 10,000 targets, nobody watches and `command` is CM_NO_HANDLE. At most 256 watched. */
  cm_status (*CM_NULLABLE run)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text specification,
                               const cm_command_callbacks *CM_NULLABLE callbacks, void *CM_NULLABLE context,
                               cm_handle *CM_NONNULL command, cm_buffer *CM_NONNULL id, cm_error *CM_NULLABLE error);
  /* [wait] Watches a command that runs already, by id; of its targets those that the actor may see. */
  cm_status (*CM_NULLABLE watch)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text id,
                                 const cm_command_callbacks *CM_NONNULL callbacks, void *CM_NULLABLE context,
                                 cm_handle *CM_NONNULL command, cm_error *CM_NULLABLE error);
  /* [any] Stops watching; the command goes on. */
  cm_status (*CM_NULLABLE unwatch)(cm_host_context *CM_NONNULL host, cm_handle command);
  /* [wait] */
  cm_status (*CM_NULLABLE cancel)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text id, cm_error *CM_NULLABLE error);
  /* [wait] What a client printed: `stream` 1 output, 2 errors; from `offset`, as much as fits; `buffer.size` 0 at the end;
   * CM_E_UNAVAILABLE: nothing more yet, the command is still running. Audited. */
  cm_status (*CM_NULLABLE output)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text id, cm_text client,
                                  uint32_t stream, uint64_t offset, cm_buffer *CM_NONNULL buffer, cm_error *CM_NULLABLE error);
  /* [wait] As `run`, with variables of the environment that stay secret: NAME=VALUE, each ended by a NUL byte; values are UTF-8; at
   * most 64, 16 KiB in all. The core keeps them in memory until the command's last target has ended, and in nothing that
   * lasts; its record has the names, and "masked": true. Clients keep them in memory until the start. The output is stored with
   * asterisks in place of each value of 8 bytes or more, as it is and as base 64, over any borders of pieces; that is no
   * boundary: a program can print a secret otherwise. "offline": "queue" is refused: run it again when the client is there. After
   * a restart of the core what has not started ends as refused with the code "secrets-gone", and what is still printed is
   * stored as asterisks. Since ABI 1.1. */
  cm_status (*CM_NULLABLE run_with_secrets)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text specification,
                                            cm_bytes variables, const cm_command_callbacks *CM_NULLABLE callbacks,
                                            void *CM_NULLABLE context, cm_handle *CM_NONNULL command,
                                            cm_buffer *CM_NONNULL id, cm_error *CM_NULLABLE error);
  /* [own] From `load` on; works at once. All commands that are accepted from now on are bound to it, in their record
   * ("output_filters": the ids of plugins): their output passes it, or is kept as asterisks, line ends excepted. That holds
   * over restarts, and while the plugin is stopped, missing or fails; a target whose output met that says "withheld_bytes".
   * Commands accepted while it is not there are bound to it only where an operator said so (setting required_output_filters).
   * A new version takes over without a gap: register in `load`. Needs "output.filter" and "inline". One for each plugin, else
   * CM_E_EXISTS. Several filters work in the order of their plugins' ids, after the masking of secrets. Since ABI 1.2. */
  cm_status (*CM_NULLABLE filter_add)(cm_host_context *CM_NONNULL host,
                                      const cm_output_filter_callbacks *CM_NONNULL callbacks, void *CM_NULLABLE context,
                                      cm_handle *CM_NONNULL filter, cm_error *CM_NULLABLE error);
  /* [any] Commands are not bound to it any more; what bound ones still print is kept as asterisks. Since ABI 1.2. */
  cm_status (*CM_NULLABLE filter_remove)(cm_host_context *CM_NONNULL host, cm_handle filter);
} cm_commands;

/* ---- cm.channels/1 (channels): a stream to an agent -------------------------------------------------------------- *
 * A channel outlives its connection and a restart of the core: its far end lives with the agent. */

#define CM_INTERFACE_CHANNELS "cm.channels/1"

typedef struct cm_channel_callbacks {
  cm_head head;
  /* [own], [inline] with "inline": true. The far end is there. `description` is JSON. */
  void (*CM_NULLABLE opened)(void *CM_NULLABLE context, cm_handle channel, cm_text description);
  /* As `opened`. Output. Bytes of a stream come in order; an `offset` greater than the one expected is a gap that
   * the channel's specification allowed. Give credit back with `grant`. */
  void (*CM_NULLABLE data)(void *CM_NULLABLE context, cm_handle channel, uint64_t offset, cm_bytes bytes);
  /* As `opened`. Optional: input waits no more than a little: go on with `write`. */
  void (*CM_NULLABLE writable)(void *CM_NULLABLE context, cm_handle channel);
  /* As `opened`. Optional: the connection to the client is down (0) or up again (1); nothing is lost meanwhile. */
  void (*CM_NULLABLE linked)(void *CM_NULLABLE context, cm_handle channel, uint32_t up);
  /* As `opened`. The far end has ended, or could not be opened; `result` is JSON: {"outcome", "exit_code", "code", "message",
   * …}. The handle is dead. */
  void (*CM_NULLABLE ended)(void *CM_NULLABLE context, cm_handle channel, cm_text result);
  /* [own] Last call. */
  void (*CM_NULLABLE destroy)(void *CM_NULLABLE context);
} cm_channel_callbacks;

typedef struct cm_channels {
  cm_head head;
  /* [wait] Opens a channel; audited, the actor's rights and the command policy apply. `specification` is JSON:
   *   "client", "kind" ("pty"), "argv" or none for the log-in shell, "user", "environment", "directory", "terminal" (TERM),
   *   "rows", "columns", "scrollback_bytes", "lossy" (true: output that nobody takes falls out of the scrollback instead of
   *   stopping the program), "idle_s", "maximum_s", "inline"
   * `id` gets the durable id with which it can be attached later. */
  cm_status (*CM_NULLABLE open)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text specification,
                                const cm_channel_callbacks *CM_NONNULL callbacks, void *CM_NULLABLE context,
                                cm_handle *CM_NONNULL channel, cm_buffer *CM_NONNULL id, cm_error *CM_NULLABLE error);
  /* [wait] Takes over a channel that is there, from this offset of its output; where that has fallen out, from the first one that
   * is kept. Who held it before hears `ended` with code "taken-over". */
  cm_status (*CM_NULLABLE attach)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text id, uint64_t offset,
                                  uint32_t is_inline, const cm_channel_callbacks *CM_NONNULL callbacks,
                                  void *CM_NULLABLE context, cm_handle *CM_NONNULL channel, cm_error *CM_NULLABLE error);
  /* [wait] The plugin's channels that are there, JSON {"items": [{"id", "client", "kind", "opened_ms", …}]}: after a restart. */
  cm_status (*CM_NULLABLE list)(cm_host_context *CM_NONNULL host, cm_buffer *CM_NONNULL json, cm_error *CM_NULLABLE error);
  /* [any] Input, at most 48 KiB at once. CM_E_BUSY: not taken, `writable` will follow. */
  cm_status (*CM_NULLABLE write)(cm_host_context *CM_NONNULL host, cm_handle channel, cm_bytes bytes);
  /* [any] Output may go up to this offset (exclusive); only ever grows. 256 KiB are granted from the beginning. */
  cm_status (*CM_NULLABLE grant)(cm_host_context *CM_NONNULL host, cm_handle channel, uint64_t offset);
  /* [any] */
  cm_status (*CM_NULLABLE resize)(cm_host_context *CM_NONNULL host, cm_handle channel, uint32_t rows, uint32_t columns);
  /* [any] Ends the far end: TERM, then KILL, for everything that it started. `ended` follows. */
  cm_status (*CM_NULLABLE close)(cm_host_context *CM_NONNULL host, cm_handle channel);
  /* [any] Lets go of it; the far end goes on. The handle is dead. */
  cm_status (*CM_NULLABLE detach)(cm_host_context *CM_NONNULL host, cm_handle channel);
} cm_channels;

/* ---- cm.private_files/1 (private-files): secret content in a client's memory --------------------------------------- *
 * A private file stands on a file system of the client that lives in memory, never on its disk. The core keeps nothing of it:
 * the plugin places it again when the client comes back from a restart ("client.online"), and asks what is there for proof.
 * A plugin sees and changes only what it has placed itself. Each change is audited before it is sent, with client, name,
 * owner and hook, and neither content nor hash. Since ABI 1.1. */

#define CM_INTERFACE_PRIVATE_FILES "cm.private_files/1"

typedef struct cm_private_file_callbacks {
  cm_head head;
  /* [own] The call has come to its end, once. CM_OK: `result` is JSON:
   *   put     {"changed": true, "file": {"name", "path", "bytes", "sha256", "owner", "mode", "expires_in_ms", "hook_fault"}}: it
   *           stands on the client; "hook_fault" says why the hook did not do its work
   *   remove  {"changed": true}: false where there was none
   *   list    {"items": [file, …]}: what is there now; "sha256" is of what was read just then
   * Else {"code", "message"}, and where the code is not "private-file-timeout", "client-offline" or "plugin-wait" nothing was
   * changed. The hash tells short secrets to whoever can guess them: it belongs into no log and no event. */
  void (*CM_NULLABLE done)(void *CM_NULLABLE context, cm_status status, cm_text result);
  /* [own] Last call. */
  void (*CM_NULLABLE destroy)(void *CM_NULLABLE context);
} cm_private_file_callbacks;

typedef struct cm_private_files {
  cm_head head;
  /* [any] Places a file, or replaces it as a whole. `specification` is JSON:
   *   "name"        1 to 64 of A-Z a-z 0-9 . _ -, the first none of . and -
   *   "owner", "group"  of the client; without: the agent's user, and the owner's group
   *   "mode"        a number, bits of 0660 (432); default 0400 (256)
   *   "ttl_s"       the client removes it after that time, whether a core is there or not; without: never
   *   "hook"        what the client does after a change if its own policy allows exactly that: ["reload", UNIT],
   *                 ["restart", UNIT], ["signal", "HUP", UNIT or PID-FILE], ["run", PROGRAM, …]
   * A file that is there already, the same, gets its new time and nothing else, and its hook runs only if it failed before.
   * At most 1,040,384 bytes; 64 files and 8 MiB per client. CM_E_BUSY: 1,024 calls or 32 MiB of this plugin are under way: not
   * taken, go on when one is done. */
  cm_status (*CM_NULLABLE put)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text client, cm_text specification,
                               cm_bytes content, const cm_private_file_callbacks *CM_NONNULL callbacks,
                               void *CM_NULLABLE context, cm_error *CM_NULLABLE error);
  /* [any] Also where there is none. The hook of its put runs. */
  cm_status (*CM_NULLABLE remove)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text client, cm_text name,
                                  const cm_private_file_callbacks *CM_NONNULL callbacks, void *CM_NULLABLE context,
                                  cm_error *CM_NULLABLE error);
  /* [any] The plugin's own files on a client. */
  cm_status (*CM_NULLABLE list)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text client,
                                const cm_private_file_callbacks *CM_NONNULL callbacks, void *CM_NULLABLE context,
                                cm_error *CM_NULLABLE error);
} cm_private_files;

/* ---- cm.jobs/1 (jobs) -------------------------------------------------------------------------------------------- */

#define CM_INTERFACE_JOBS "cm.jobs/1"

typedef struct cm_job_callbacks {
  cm_head head;
  /* [own] An attempt begins; return soon and end it with `finish`, from any thread. `attempt` is valid until then, and is fenced:
   * after its time every call with it answers CM_E_GONE. `job` is JSON {"id", "attempt", "fence", "arguments"}, `checkpoint` the
   * last one or empty. */
  void (*CM_NULLABLE run)(void *CM_NULLABLE context, cm_handle attempt, cm_text job, cm_bytes checkpoint);
  /* [own] The attempt is to end soon: cancelled, out of time, or the plugin quiesces (then `quiesce` has returned before). 30 s
   * later it is over in any case (10 s when the plugin quiesces). */
  void (*CM_NULLABLE cancel)(void *CM_NULLABLE context, cm_handle attempt);
  /* [own] Last call. */
  void (*CM_NULLABLE destroy)(void *CM_NULLABLE context);
} cm_job_callbacks;

#define CM_JOB_SUCCEEDED 0u
#define CM_JOB_FAILED    1u /* tried again by the kind's rule */
#define CM_JOB_DEAD      2u /* not tried again */

typedef struct cm_jobs {
  cm_head head;
  /* [own] In `load`. `specification` is JSON: "name" (begins with the plugin's id or its last word and a dot), "summary",
   * "guarantee" ("idempotent" or "at-most-once"), "concurrency", "timeout_s", "retry" {"attempts", "first_s", "longest_s"},
   * "arguments" (a JSON schema). Offered when the plugin has started, at most 64. */
  cm_status (*CM_NULLABLE kind_add)(cm_host_context *CM_NONNULL host, cm_text specification,
                                    const cm_job_callbacks *CM_NONNULL callbacks, void *CM_NULLABLE context,
                                    cm_handle *CM_NONNULL kind, cm_error *CM_NULLABLE error);
  /* [own] Attempts that run are interrupted, jobs of the kind wait until somebody offers it again. */
  cm_status (*CM_NULLABLE kind_remove)(cm_host_context *CM_NONNULL host, cm_handle kind);
  /* [wait] `job` is the body of POST /api/v1/jobs, and may have "idempotency_key" besides: the same key again gives the same job.
   * Returns when it is durable; `id` gets its id, 26 bytes; where they do not fit nothing is done. A job whose "parent" is
   * that of the acting attempt is its child. */
  cm_status (*CM_NULLABLE submit)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text job, cm_buffer *CM_NONNULL id,
                                  cm_error *CM_NULLABLE error);
  /* [wait] */
  cm_status (*CM_NULLABLE cancel)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text id, cm_error *CM_NULLABLE error);
  /* [wait] The job as GET /api/v1/jobs/{id} shows it. */
  cm_status (*CM_NULLABLE get)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text id, cm_buffer *CM_NONNULL json,
                               cm_error *CM_NULLABLE error);
  /* [wait] Keeps a checkpoint (64 KiB) and the changes of a store transaction (CM_NO_HANDLE: none, else it is ended) in one
   * commit; returns when both are durable, or neither. */
  cm_status (*CM_NULLABLE checkpoint)(cm_host_context *CM_NONNULL host, cm_handle attempt, cm_bytes checkpoint,
                                      cm_handle transaction, cm_error *CM_NULLABLE error);
  /* [any] `permille` of the whole, 0 to 1,000. */
  cm_status (*CM_NULLABLE progress)(cm_host_context *CM_NONNULL host, cm_handle attempt, uint32_t permille, cm_text note);
  /* [any] A line of the job's log, 2 KiB. CM_E_BUSY: 64 lines wait to be written; not taken. */
  cm_status (*CM_NULLABLE log)(cm_host_context *CM_NONNULL host, cm_handle attempt, cm_text line);
  /* [any] Ends the attempt, once: CM_E_GONE afterwards. `result` is JSON (64 KiB) or empty; `code` (64 bytes) and `reason`
   * (1 KiB) for failures. An idempotent attempt that failed while its plugin quiesces counts as interrupted: the next version
   * runs it again. */
  cm_status (*CM_NULLABLE finish)(cm_host_context *CM_NONNULL host, cm_handle attempt, uint32_t outcome, cm_text result,
                                  cm_text code, cm_text reason);
} cm_jobs;

/* ---- cm.events/1 (events) ---------------------------------------------------------------------------------------- */

#define CM_INTERFACE_EVENTS "cm.events/1"

typedef struct cm_event_callbacks {
  cm_head head;
  /* [own] `json` as in GET /api/v1/events. */
  void (*CM_NULLABLE event)(void *CM_NULLABLE context, cm_text kind, cm_text json);
  /* [own] Optional: the plugin was too slow, and this many events fell out before it got them. */
  void (*CM_NULLABLE missed)(void *CM_NULLABLE context, uint64_t count);
  /* [own] Last call. */
  void (*CM_NULLABLE destroy)(void *CM_NULLABLE context);
} cm_event_callbacks;

typedef struct cm_events {
  cm_head head;
  /* [any] `kind` begins with the plugin's id, its last word or an area of its routes, and a dot; the core's own areas
   * ("client", "job", …) are taken. `client` and `subject` (256 bytes) may be empty; `data` is JSON, 4 KiB, or empty.
   * At most 1,000 a second; over that CM_E_BUSY. */
  cm_status (*CM_NULLABLE publish)(cm_host_context *CM_NONNULL host, cm_text kind, cm_text client, cm_text subject,
                                   cm_text data);
  /* [own] From `start` on. `kinds` are up to 64 kinds with commas between; "client.*" is an area, "*" everything. Gets what
   * happens from now on. At most 64 subscriptions. */
  cm_status (*CM_NULLABLE subscribe)(cm_host_context *CM_NONNULL host, cm_text kinds,
                                     const cm_event_callbacks *CM_NONNULL callbacks, void *CM_NULLABLE context,
                                     cm_handle *CM_NONNULL subscription, cm_error *CM_NULLABLE error);
  /* [any] */
  cm_status (*CM_NULLABLE unsubscribe)(cm_host_context *CM_NONNULL host, cm_handle subscription);
} cm_events;

/* ---- cm.store/1 (store): the plugin's own durable memory --------------------------------------------------------- *
 * Keys are text of 1 to 512 bytes, values up to 1 MiB; at most 1,000,000 keys, 10,000 blobs and a configured number of bytes
 * per plugin, over all its versions; over that CM_E_UNAVAILABLE. */

#define CM_INTERFACE_STORE "cm.store/1"

typedef struct cm_store {
  cm_head head;
  /* [wait] CM_E_NOT_FOUND: no such key. */
  cm_status (*CM_NULLABLE get)(cm_host_context *CM_NONNULL host, cm_text key, cm_buffer *CM_NONNULL value,
                               cm_error *CM_NULLABLE error);
  /* [wait] Keys with this prefix after `after`, in order, JSON {"items": ["…"], "next": "…"|null}; at most 1,000. */
  cm_status (*CM_NULLABLE list)(cm_host_context *CM_NONNULL host, cm_text prefix, cm_text after, uint32_t limit,
                                cm_buffer *CM_NONNULL json, cm_error *CM_NULLABLE error);
  /* [wait] Begins to collect changes; nothing is written before `commit`. At most 64 transactions at a time, each with 4,096
   * changes and 4 MiB; what is over that answers CM_E_TOO_LARGE and is not taken. */
  cm_status (*CM_NULLABLE begin)(cm_host_context *CM_NONNULL host, cm_handle *CM_NONNULL transaction);
  /* [wait] */
  cm_status (*CM_NULLABLE put)(cm_host_context *CM_NONNULL host, cm_handle transaction, cm_text key, cm_bytes value);
  /* [wait] */
  cm_status (*CM_NULLABLE remove)(cm_host_context *CM_NONNULL host, cm_handle transaction, cm_text key);
  /* [wait] The transaction goes through only if the key has this value now (`exists` 1), or none (`exists` 0); else
   * `commit` answers CM_E_EXISTS and changes nothing. */
  cm_status (*CM_NULLABLE expect)(cm_host_context *CM_NONNULL host, cm_handle transaction, cm_text key, uint32_t exists,
                                  cm_bytes value);
  /* [wait] Returns when all changes are durable, or none was made. The transaction is over in any case. */
  cm_status (*CM_NULLABLE commit)(cm_host_context *CM_NONNULL host, cm_handle transaction, cm_error *CM_NULLABLE error);
  /* [wait] */
  cm_status (*CM_NULLABLE discard)(cm_host_context *CM_NONNULL host, cm_handle transaction);

  /* Blobs: long byte strings with names like keys, appended to and read by range. */
  /* [wait] Appends up to 8 MiB; makes the blob if it is not there. `size` gets its new size. Durable after `blob_sync`. */
  cm_status (*CM_NULLABLE blob_append)(cm_host_context *CM_NONNULL host, cm_text name, cm_bytes bytes,
                                       uint64_t *CM_NULLABLE size, cm_error *CM_NULLABLE error);
  /* [wait] */
  cm_status (*CM_NULLABLE blob_sync)(cm_host_context *CM_NONNULL host, cm_text name, cm_error *CM_NULLABLE error);
  /* [wait] As much as fits from `offset`; `buffer.size` is what was read, 0 at the end. */
  cm_status (*CM_NULLABLE blob_read)(cm_host_context *CM_NONNULL host, cm_text name, uint64_t offset,
                                     cm_buffer *CM_NONNULL buffer, cm_error *CM_NULLABLE error);
  /* [wait] */
  cm_status (*CM_NULLABLE blob_size)(cm_host_context *CM_NONNULL host, cm_text name, uint64_t *CM_NONNULL size);
  /* [wait] */
  cm_status (*CM_NULLABLE blob_remove)(cm_host_context *CM_NONNULL host, cm_text name, cm_error *CM_NULLABLE error);
} cm_store;

/* ---- cm.files/1 (files): the managed store, transfers between it and clients, and what clients have ---------------- *
 * A stored file is a whole that never changes, opened by its id; while it is written it belongs to one writer. What is made
 * for an actor is his: others see it only with the right on all clients. Nothing here opens a path of the core's machine. */

#define CM_INTERFACE_FILES "cm.files/1"

typedef struct cm_transfer_callbacks {
  cm_head head;
  /* [own] Optional. It moved on; at most twice a second, and the newest state only. `json` as in GET /api/v1/transfers/{id}. */
  void (*CM_NULLABLE progress)(void *CM_NULLABLE context, cm_handle transfer, cm_text json);
  /* [own] It has ended, once: done, failed or cancelled. `json` says how, and for a file of a client that came whole has the id
   * of the stored file. The handle is dead. */
  void (*CM_NULLABLE ended)(void *CM_NULLABLE context, cm_handle transfer, cm_text json);
  /* [own] Last call. */
  void (*CM_NULLABLE destroy)(void *CM_NULLABLE context);
} cm_transfer_callbacks;

typedef struct cm_client_file_callbacks {
  cm_head head;
  /* [own] How it ended, once. CM_OK: `result` is what the function says. Else {"code", "message"}, from the client or the core:
   * "path-not-found", "path-not-allowed", "client-offline", "client-timeout", … (Docs/errors.md). */
  void (*CM_NULLABLE done)(void *CM_NULLABLE context, cm_status status, cm_text result);
  /* [own] Last call. */
  void (*CM_NULLABLE destroy)(void *CM_NULLABLE context);
} cm_client_file_callbacks;

typedef struct cm_files {
  cm_head head;
  /* [wait] Begins a file. `options` is JSON as the body of POST /api/v1/files: "name", and perhaps "size" (space is reserved, and
   * exactly so many bytes must come), "form" ("file", or "tree" for a POSIX pax archive), "keep_s". `id` gets its id, 26 bytes;
   * where they do not fit nothing is done. At most 64 writers; a writer that the plugin forgets is let go of when it stops. */
  cm_status (*CM_NULLABLE create)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text options,
                                  cm_handle *CM_NONNULL writer, cm_buffer *CM_NONNULL id, cm_error *CM_NULLABLE error);
  /* [wait] Goes on with an unfinished file; `offset` gets where: what is durable of it. Another writer of it loses it. */
  cm_status (*CM_NULLABLE resume)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text id, cm_handle *CM_NONNULL writer,
                                  uint64_t *CM_NONNULL offset, cm_error *CM_NULLABLE error);
  /* [wait] Up to 8 MiB, in the order of the calls; the disk is the pace. Where the disk or the store is full the file is gone,
   * its space given back and the writer dead: CM_E_UNAVAILABLE, `http_status` 507. */
  cm_status (*CM_NULLABLE append)(cm_host_context *CM_NONNULL host, cm_handle writer, cm_bytes bytes,
                                  cm_error *CM_NULLABLE error);
  /* [wait] Makes durable what was appended; `offset` gets how much that is. It also happens by itself, every 64 MiB. */
  cm_status (*CM_NULLABLE sync)(cm_host_context *CM_NONNULL host, cm_handle writer, uint64_t *CM_NONNULL offset,
                                cm_error *CM_NULLABLE error);
  /* [wait] Makes it whole and durable; the writer is dead afterwards, unless bytes are missing (code "file-incomplete").
   * `sha256` is 32 bytes or NULL: what the bytes must have, else the file is discarded. `json` gets the file as GET
   * /api/v1/files/{id} shows it; where it does not fit the file is whole all the same. */
  cm_status (*CM_NULLABLE seal)(cm_host_context *CM_NONNULL host, cm_handle writer, const uint8_t *CM_NULLABLE sha256,
                                cm_buffer *CM_NONNULL json, cm_error *CM_NULLABLE error);
  /* [wait] Makes durable what was appended and lets go of the file: somebody can `resume` it within a day. The writer is dead. */
  cm_status (*CM_NULLABLE release)(cm_host_context *CM_NONNULL host, cm_handle writer);
  /* [wait] Removes the unfinished file; its space is free. The writer is dead. */
  cm_status (*CM_NULLABLE discard)(cm_host_context *CM_NONNULL host, cm_handle writer);

  /* [wait] One file as GET /api/v1/files/{id} shows it. */
  cm_status (*CM_NULLABLE get)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text id, cm_buffer *CM_NONNULL json,
                               cm_error *CM_NULLABLE error);
  /* [wait] The files that the actor may see, newest first, JSON {"items": […], "next": "…"|null}; `after` is a `next` or empty;
   * at most `limit` (1 to 1,000). */
  cm_status (*CM_NULLABLE list)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text after, uint32_t limit,
                                cm_buffer *CM_NONNULL json, cm_error *CM_NULLABLE error);
  /* [wait] Opens a whole file for reading; audited. At most 64 readers; a file that is removed stays readable. */
  cm_status (*CM_NULLABLE open)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text id, cm_handle *CM_NONNULL reader,
                                uint64_t *CM_NONNULL size, cm_error *CM_NULLABLE error);
  /* [wait] As much as fits from `offset`, at most 1 MiB; `buffer.size` is what was read, 0 at the end. Several threads may read
   * with one reader at once. */
  cm_status (*CM_NULLABLE read)(cm_host_context *CM_NONNULL host, cm_handle reader, uint64_t offset,
                                cm_buffer *CM_NONNULL buffer, cm_error *CM_NULLABLE error);
  /* [any] */
  cm_status (*CM_NULLABLE close)(cm_host_context *CM_NONNULL host, cm_handle reader);
  /* [wait] Removes a file. CM_E_EXISTS: a transfer needs it. */
  cm_status (*CM_NULLABLE remove)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text id, cm_error *CM_NULLABLE error);

  /* [wait] Starts a transfer: `specification` is the body of POST /api/v1/transfers for one client. Returns when it is durably
   * accepted; `id` gets its id, 26 bytes; where they do not fit nothing is done. It goes on over restarts, whoever watches. Since
   * ABI 1.3 it may have "idempotency_key" besides: the same key and text of the same actor again give the same transfer, as long
   * as that is listed; so a crash between this call and the note of its `id` starts no second one.
   * `callbacks` may be NULL: then nobody watches and `transfer` is CM_NO_HANDLE. At most 256 watched. */
  cm_status (*CM_NULLABLE transfer_start)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text specification,
                                          const cm_transfer_callbacks *CM_NULLABLE callbacks, void *CM_NULLABLE context,
                                          cm_handle *CM_NONNULL transfer, cm_buffer *CM_NONNULL id,
                                          cm_error *CM_NULLABLE error);
  /* [wait] Watches a transfer by its id: one of an earlier life of the plugin, for example. One that has ended already is told
   * so as well. */
  cm_status (*CM_NULLABLE transfer_watch)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text id,
                                          const cm_transfer_callbacks *CM_NONNULL callbacks, void *CM_NULLABLE context,
                                          cm_handle *CM_NONNULL transfer, cm_error *CM_NULLABLE error);
  /* [any] Stops watching; the transfer goes on. */
  cm_status (*CM_NULLABLE transfer_unwatch)(cm_host_context *CM_NONNULL host, cm_handle transfer);
  /* [wait] Asks it to end; `ended` follows where somebody watches. */
  cm_status (*CM_NULLABLE transfer_cancel)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text id,
                                           cm_error *CM_NULLABLE error);

  /* What follows asks a client about its own files, by absolute paths, and does not wait: CM_OK says that `done` will come.
   * The client looks only where its own policy allows it. Looking needs the actor's right "file.read" on the client, changing
   * "file.write"; each call is in the audit trail before the client hears of it. At most 64 calls are under way: CM_E_BUSY.
   *
   * [any] Entries of a directory in the order of their names' bytes, after the name `after` (empty: from the first), at most
   * `limit` (1 to 1,000). `result` is {"items": […], "next": NAME|null}, an item {"name", "kind" ("file", "directory", "link",
   * "other"), "size", "mode", "modified_ns", "owner", "group", "target"} with the target of links only. Since ABI 1.3. */
  cm_status (*CM_NULLABLE client_list)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text client, cm_text path,
                                       cm_text after, uint32_t limit,
                                       const cm_client_file_callbacks *CM_NONNULL callbacks, void *CM_NULLABLE context,
                                       cm_error *CM_NULLABLE error);
  /* [any] One entry; its "name" is the path. `follow` 1: of what a link leads to; 0: of the link. Since ABI 1.3. */
  cm_status (*CM_NULLABLE client_status)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text client, cm_text path,
                                         uint32_t follow, const cm_client_file_callbacks *CM_NONNULL callbacks,
                                         void *CM_NULLABLE context, cm_error *CM_NULLABLE error);
  /* [any] The hash of a regular file: `algorithm` is "sha256" or "md5". `result` is the entry as it was hashed, with "hash" in
   * lower-case hexadecimal digits. It takes as long as the client reads, ten minutes at most ("hash-timeout"). An older agent
   * cannot: "hash-unsupported". Since ABI 1.3. */
  cm_status (*CM_NULLABLE client_hash)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text client, cm_text path,
                                       cm_text algorithm, const cm_client_file_callbacks *CM_NONNULL callbacks,
                                       void *CM_NULLABLE context, cm_error *CM_NULLABLE error);
  /* [any] `parents` 1: those above too, and one that is there is no error. `mode`: permission bits. `result` is {}; it is on the
   * client's disk, here and below. Since ABI 1.3. */
  cm_status (*CM_NULLABLE client_make_directory)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text client,
                                                 cm_text path, uint32_t parents, uint32_t mode,
                                                 const cm_client_file_callbacks *CM_NONNULL callbacks,
                                                 void *CM_NULLABLE context, cm_error *CM_NULLABLE error);
  /* [any] Within one file system. `replace` 0: "path-exists" where `target` is there. Since ABI 1.3. */
  cm_status (*CM_NULLABLE client_rename)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text client, cm_text path,
                                         cm_text target, uint32_t replace,
                                         const cm_client_file_callbacks *CM_NONNULL callbacks, void *CM_NULLABLE context,
                                         cm_error *CM_NULLABLE error);
  /* [any] A file, a link (not what it leads to) or an empty directory; `recursive` 1: a directory with all that is in it. Since
   * ABI 1.3. */
  cm_status (*CM_NULLABLE client_remove)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text client, cm_text path,
                                         uint32_t recursive, const cm_client_file_callbacks *CM_NONNULL callbacks,
                                         void *CM_NULLABLE context, cm_error *CM_NULLABLE error);
} cm_files;

/* ---- cm.enrollment/1 (enrollment): what it takes to bring an agent to a machine ---------------------------------- */

#define CM_INTERFACE_ENROLLMENT "cm.enrollment/1"

typedef struct cm_enrollment {
  cm_head head;
  /* [any] Where agents find this core: JSON {"url", "fingerprint"}. `url` is what `agents.url` of the core's configuration says,
   * null where it says nothing; `fingerprint` is what an agent is given as its pin. */
  cm_status (*CM_NULLABLE core)(cm_host_context *CM_NONNULL host, cm_buffer *CM_NONNULL json, cm_error *CM_NULLABLE error);
  /* [wait] Makes a token; audited, in the actor's name and with his right to do so. `request` is JSON: "ttl_s" (3,600 without
   * it), "uses" (1 without it), "description", "labels". `json` gets {"id", "token", "expires_ms"}, at most 1 KiB; where there
   * is less room nothing is made. Keep the token in memory for as long as it takes, and nowhere else. */
  cm_status (*CM_NULLABLE token_create)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text request,
                                        cm_buffer *CM_NONNULL json, cm_error *CM_NULLABLE error);
  /* [wait] Ends a token by its id; clients that it let in stay. May be repeated. In its own name a plugin ends its own. */
  cm_status (*CM_NULLABLE token_revoke)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text id,
                                        cm_error *CM_NULLABLE error);
  /* [wait] The agent's program that this core hands out, JSON {"version", "bytes", "sha256", "machine", "glibc", "libraries"}:
   * `machine` as in `uname -m`, `glibc` the oldest version that it runs with, `libraries` what it needs besides.
   * CM_E_NOT_FOUND: there is none; the error says where it was looked for. */
  cm_status (*CM_NULLABLE agent)(cm_host_context *CM_NONNULL host, cm_buffer *CM_NONNULL json, cm_error *CM_NULLABLE error);
  /* [wait] As much of it as fits from `offset`; `bytes.size` is what was read, 0 at the end. `sha256` is the one of `agent`:
   * CM_E_GONE, where the file has become another since. */
  cm_status (*CM_NULLABLE agent_read)(cm_host_context *CM_NONNULL host, cm_text sha256, uint64_t offset,
                                      cm_buffer *CM_NONNULL bytes, cm_error *CM_NULLABLE error);
} cm_enrollment;

/* ---- cm.crypto/1 (sealing: secrets) ------------------------------------------------------------------------------ */

#define CM_INTERFACE_CRYPTO "cm.crypto/1"

typedef struct cm_crypto {
  cm_head head;
  /* [any] Fills `bytes` bytes (1 MiB), from the system's generator. */
  cm_status (*CM_NULLABLE random)(cm_host_context *CM_NONNULL host, uint8_t *CM_NONNULL data, uint64_t bytes);
  /* [any] `digest` has room for 32 bytes. `data` has at most 64 MiB, here and below. */
  cm_status (*CM_NULLABLE sha256)(cm_host_context *CM_NONNULL host, cm_bytes data, uint8_t *CM_NONNULL digest);
  /* [any] `code` has room for 32 bytes. */
  cm_status (*CM_NULLABLE hmac_sha256)(cm_host_context *CM_NONNULL host, cm_bytes key, cm_bytes data,
                                       uint8_t *CM_NONNULL code);
  /* [any] Seals a secret (64 KiB) for this plugin and this `label` (1 to 256 bytes), under a key of the core that its master
   * key seals; only the same plugin with the same label opens it. Needs "secrets", else CM_E_DENIED. */
  cm_status (*CM_NULLABLE seal)(cm_host_context *CM_NONNULL host, cm_text label, cm_bytes secret, cm_buffer *CM_NONNULL sealed,
                                cm_error *CM_NULLABLE error);
  /* [any] CM_E_DENIED: not sealed by this plugin, under this label, by this core; or changed since. */
  cm_status (*CM_NULLABLE unseal)(cm_host_context *CM_NONNULL host, cm_text label, cm_bytes sealed,
                                  cm_buffer *CM_NONNULL secret, cm_error *CM_NULLABLE error);
  /* [any] AES-256-GCM under a key of the plugin's own (32 bytes), for data that is larger than `seal` takes or is to be made
   * unreadable by forgetting its key: keep the key sealed. `associated` (4 KiB) is bound in. At most 64 MiB; the result is 28
   * bytes longer. */
  cm_status (*CM_NULLABLE encrypt)(cm_host_context *CM_NONNULL host, cm_bytes key, cm_bytes associated, cm_bytes plain,
                                   cm_buffer *CM_NONNULL encrypted, cm_error *CM_NULLABLE error);
  /* [any] CM_E_DENIED: not encrypted under this key with these associated bytes; or changed since. */
  cm_status (*CM_NULLABLE decrypt)(cm_host_context *CM_NONNULL host, cm_bytes key, cm_bytes associated, cm_bytes encrypted,
                                   cm_buffer *CM_NONNULL plain, cm_error *CM_NULLABLE error);
} cm_crypto;

/* ---- cm.audit/1 (audit.write; sink: audit.read) ------------------------------------------------------------------ */

#define CM_INTERFACE_AUDIT "cm.audit/1"
#define CM_AUDIT_ALLOWED 0u
#define CM_AUDIT_REFUSED 1u
#define CM_AUDIT_FAILED  2u

typedef struct cm_audit_callbacks {
  cm_head head;
  /* [own] The next record of the trail, JSON as in the export. CM_OK: it is kept and does not come again. Anything
   * else: it comes again later. */
  cm_status (*CM_NULLABLE record)(void *CM_NULLABLE context, uint64_t sequence, cm_text json);
  /* [own] Last call. */
  void (*CM_NULLABLE destroy)(void *CM_NULLABLE context);
} cm_audit_callbacks;

typedef struct cm_audit {
  cm_head head;
  /* [wait] Writes a record and returns when it is durable: before the act is acknowledged. `action` begins like the kind
   * of an event; `clients` are ids (1,000) with commas between or empty; `target` and `reason` have at most 1 KiB; `detail` is
   * JSON, 16,000 bytes, or empty. The record says which plugin wrote it, whoever the actor is. */
  cm_status (*CM_NULLABLE write)(cm_host_context *CM_NONNULL host, cm_handle actor, cm_text action, cm_text clients,
                                 cm_text target, uint32_t outcome, cm_text reason, cm_text detail,
                                 cm_error *CM_NULLABLE error);
  /* [own] From `start` on. Gets every record from the last one that it kept; the position is durable, per plugin: one sink. */
  cm_status (*CM_NULLABLE sink)(cm_host_context *CM_NONNULL host, const cm_audit_callbacks *CM_NONNULL callbacks,
                                void *CM_NULLABLE context, cm_handle *CM_NONNULL sink, cm_error *CM_NULLABLE error);
  /* [any] */
  cm_status (*CM_NULLABLE sink_remove)(cm_host_context *CM_NONNULL host, cm_handle sink);
} cm_audit;

/* ---- cm.metrics/1 ------------------------------------------------------------------------------------------------ */

#define CM_INTERFACE_METRICS "cm.metrics/1"
#define CM_METRIC_COUNTER   0u
#define CM_METRIC_GAUGE     1u
#define CM_METRIC_HISTOGRAM 2u /* of seconds */

typedef struct cm_metrics {
  cm_head head;
  /* [own] Appears in /metrics as client_manager_plugin_NAME with the label plugin="ID". `name` is [a-z_]; at most 200. */
  cm_status (*CM_NULLABLE define)(cm_host_context *CM_NONNULL host, uint32_t kind, cm_text name, cm_text help,
                                  cm_handle *CM_NONNULL metric, cm_error *CM_NULLABLE error);
  /* [any] Counter: adds (not negative). Gauge: adds. Histogram: observes. */
  cm_status (*CM_NULLABLE add)(cm_host_context *CM_NONNULL host, cm_handle metric, double value);
  /* [any] Gauge only. */
  cm_status (*CM_NULLABLE set)(cm_host_context *CM_NONNULL host, cm_handle metric, double value);
} cm_metrics;

/* ---- cm.executor/1: threads and time ----------------------------------------------------------------------------- */

#define CM_INTERFACE_EXECUTOR "cm.executor/1"

/* [own], or a worker thread of the plugin's for `blocking`; there it may call functions marked [any]. */
typedef void (*cm_function)(void *CM_NULLABLE context);

typedef struct cm_executor {
  cm_head head;
  /* [any] Runs `function(context)` on the plugin's own thread, then `destroy(context)`; after `stop`, `destroy` alone. In order.
   * At most 4,096 wait; over that CM_E_BUSY. */
  cm_status (*CM_NULLABLE post)(cm_host_context *CM_NONNULL host, cm_function CM_NULLABLE function,
                                cm_function CM_NULLABLE destroy, void *CM_NULLABLE context);
  /* [any] The same on one of the plugin's worker threads (at most 8), where it may block for long: network, disk. */
  cm_status (*CM_NULLABLE blocking)(cm_host_context *CM_NONNULL host, cm_function CM_NULLABLE function,
                                    cm_function CM_NULLABLE destroy, void *CM_NULLABLE context);
  /* [any] Calls `function` on the own thread after `delay_ms`, then every `interval_ms` (0: once) until `timer_cancel`; a call
   * that is late is not made up for. `destroy` follows the last call. At most 1,024; over that CM_E_BUSY. */
  cm_status (*CM_NULLABLE timer)(cm_host_context *CM_NONNULL host, uint64_t delay_ms, uint64_t interval_ms,
                                 cm_function CM_NULLABLE function, cm_function CM_NULLABLE destroy,
                                 void *CM_NULLABLE context, cm_handle *CM_NONNULL timer);
  /* [any] `destroy` follows on the own thread. */
  cm_status (*CM_NULLABLE timer_cancel)(cm_host_context *CM_NONNULL host, cm_handle timer);
  /* [any] Unix time in milliseconds, by the core's clock. */
  uint64_t (*CM_NULLABLE now_ms)(cm_host_context *CM_NONNULL host);
  /* [any] 1: this is the plugin's own thread. */
  int32_t (*CM_NULLABLE is_own_thread)(cm_host_context *CM_NONNULL host);
} cm_executor;

/* ---- layouts: a compiler that lays these out otherwise must not build a plugin ----------------------------------- */

CM_STATIC_ASSERT(sizeof(void *) == 8 && sizeof(size_t) == 8, "64-bit only");
CM_STATIC_ASSERT(sizeof(cm_text) == 16 && sizeof(cm_bytes) == 16 && sizeof(cm_buffer) == 24, "layout");
CM_STATIC_ASSERT(sizeof(cm_error) == 512 && offsetof(cm_error, code) == 16 && offsetof(cm_error, text) == 80, "layout");
CM_STATIC_ASSERT(sizeof(cm_head) == 8 && sizeof(cm_lease) == 40 && offsetof(cm_lease, valid) == 32, "layout");
CM_STATIC_ASSERT(sizeof(cm_host) == 32 && offsetof(cm_host, interface_get) == 24, "layout");
CM_STATIC_ASSERT(sizeof(cm_plugin) == 72 && offsetof(cm_plugin, load) == 32, "layout");
CM_STATIC_ASSERT(sizeof(cm_log) == 24 && sizeof(cm_config) == 24 && sizeof(cm_services) == 56, "layout");
CM_STATIC_ASSERT(sizeof(cm_lease_callbacks) == 24 && sizeof(cm_service_callbacks) == 24, "layout");
CM_STATIC_ASSERT(sizeof(cm_route_callbacks) == 48 && sizeof(cm_websocket_callbacks) == 40 && sizeof(cm_http) == 144, "layout");
CM_STATIC_ASSERT(sizeof(cm_clients) == 48 && sizeof(cm_command_callbacks) == 32 && sizeof(cm_commands) == 72, "layout");
CM_STATIC_ASSERT(sizeof(cm_output_piece) == 56 && sizeof(cm_output_filter_callbacks) == 24, "layout");
CM_STATIC_ASSERT(sizeof(cm_channel_callbacks) == 56 && sizeof(cm_channels) == 72, "layout");
CM_STATIC_ASSERT(sizeof(cm_job_callbacks) == 32 && sizeof(cm_jobs) == 80, "layout");
CM_STATIC_ASSERT(sizeof(cm_event_callbacks) == 32 && sizeof(cm_events) == 32, "layout");
CM_STATIC_ASSERT(sizeof(cm_store) == 112 && sizeof(cm_crypto) == 64, "layout");
CM_STATIC_ASSERT(sizeof(cm_audit_callbacks) == 24 && sizeof(cm_audit) == 32 && sizeof(cm_metrics) == 32, "layout");
CM_STATIC_ASSERT(sizeof(cm_executor) == 56, "layout");
CM_STATIC_ASSERT(sizeof(cm_transfer_callbacks) == 32 && sizeof(cm_client_file_callbacks) == 24, "layout");
CM_STATIC_ASSERT(sizeof(cm_files) == 192, "layout");
CM_STATIC_ASSERT(sizeof(cm_enrollment) == 48, "layout");
CM_STATIC_ASSERT(sizeof(cm_private_file_callbacks) == 24 && sizeof(cm_private_files) == 32, "layout");

#ifdef __cplusplus
}
#endif
#if defined(__clang__)
#  if defined(__STDC_VERSION__) || defined(__cplusplus)
#    pragma clang diagnostic pop
#  endif
#endif
#endif
