// The C floors of cm-bench: the least work that any server could do for the same traffic, and the load for both.
// One epoll thread each, no checks beyond what keeps the traffic honest. Nothing of the product uses this.
#ifndef CM_CFLOOR_H
#define CM_CFLOOR_H

#include <stdint.h>

struct cm_load_result {
    /// Messages (or round trips) that came back right within the measured time.
    uint64_t count;
    uint64_t nanoseconds;
    /// Per round trip, only where one is in flight per connection; nanoseconds, 0 if not measured.
    uint64_t p50, p99;
};

/// Listens at 127.0.0.1; port 0 takes a free one and says which. The descriptor, or -errno.
int cm_floor_listen(uint16_t *port);

/// A WebSocket echo server in bare C. Runs until the process ends.
void cm_floor_echo(int listener);

/// HTTP POST to `/<agent number>` → WebSocket message to that agent → its answer → HTTP answer, in bare C. Agents are
/// the WebSockets that connect to it, in their order. Runs until the process ends.
void cm_floor_relay(int listener);

/// A shell on a PTY for each connection, one after the other: bytes from the connection to the PTY and back, in bare C.
/// Runs until the process ends.
void cm_floor_terminal(int listener);

/// Receives files over TLS, one connection after the other, and puts each at `path`: written beside it, synced, renamed. Runs
/// until the process ends.
void cm_floor_file(int listener, const char *path);

/// Sends the file to a `cm_floor_file` and waits until it is durable there. The count is that of its bytes; -1 when it failed.
int cm_load_file(uint16_t port, const char *path, struct cm_load_result *result);

/// Echo load: `connections` WebSockets with `depth` messages of `payload` (at most 125) bytes in flight each. 0, or -1
/// when an answer was wrong or the server failed.
int cm_load_echo(
    uint16_t port, int tls, int connections, int depth, int payload, uint64_t milliseconds,
    struct cm_load_result *result);

/// Relay load: `agents` WebSockets that echo, and `callers` HTTP connections with one POST in flight each.
int cm_load_relay(uint16_t port, int agents, int callers, uint64_t milliseconds, struct cm_load_result *result);

/// Callers of a core. The strings belong to the caller of `cm_load_commands` and live until it returns.
struct cm_command_load {
    uint16_t port;
    int tls;
    /// HTTP connections, each with at most one request in flight.
    int callers;
    /// Requests per second, sent at fixed times whatever the answers do (open loop; latency counts from the time at which
    /// a request should have gone out). 0: each caller asks again as soon as it has its answer (closed loop).
    double rate;
    /// For so long requests are sent; what is under way then is waited for.
    uint64_t milliseconds;
    /// An API token.
    const char *token;
    /// Ids of clients; the commands go to them in turn.
    const char *const *clients;
    int client_count;
};

/// Posts commands, one client each, and waits for their results in the answer. The count is that of the answers that say
/// `succeeded`; -1 at the first other answer, or when answers stay out for 30 s. Blocks the calling thread, keeps nothing.
int cm_load_commands(const struct cm_command_load *load, struct cm_load_result *result);

#endif
