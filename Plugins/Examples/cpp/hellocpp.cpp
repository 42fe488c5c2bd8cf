// A plugin in C++: one route, one service, one kind of job.
//
//   GET /api/v1/hellocpp/{name}   greets
//   com.example.hellocpp/1        greets for other plugins
//   hellocpp.count                a job that counts to ten
//
// Everything here runs on the plugin's own thread, except `greet`, which runs on its caller's: it reads only what `load`
// wrote once. No exception may cross into the core: every function that it calls is noexcept and catches.
#include "hellocpp.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <string>
#include <string_view>

namespace {

cm_text text(std::string_view view) { return {view.data(), view.size()}; }
cm_bytes bytes(const std::string &string) { return {reinterpret_cast<const uint8_t *>(string.data()), string.size()}; }
std::string_view view(cm_text text) { return {text.size ? text.data : "", static_cast<size_t>(text.size)}; }

struct Failure {
  cm_status status;
  std::string text;
};

cm_status fill(cm_error *error, cm_status status, std::string_view why) noexcept {
  if (error) {
    std::memset(error, 0, sizeof *error);
    error->status = status;
    error->text_size = static_cast<uint32_t>(std::min(why.size(), sizeof error->text));
    std::memcpy(error->text, why.data(), error->text_size);
  }
  return status;
}

/// The barrier of every function that the core calls.
template <typename Body>
cm_status barrier(cm_error *error, Body body) noexcept {
  try {
    body();
    return CM_OK;
  } catch (const Failure &failure) {
    return fill(error, failure.status, failure.text);
  } catch (const std::exception &exception) {
    return fill(error, CM_E_INTERNAL, exception.what());
  } catch (...) {
    return fill(error, CM_E_INTERNAL, "an unknown exception");
  }
}

/// A result of variable size: asks again with more room while the core says that it is too small.
template <typename Call>
cm_status read(std::string &result, Call call) {
  result.resize(256);
  for (int turn = 0; turn < 4; turn++) {
    cm_buffer buffer{reinterpret_cast<uint8_t *>(&result[0]), result.size(), 0};
    cm_status status = call(&buffer);
    if (status != CM_E_TOO_SMALL) {
      result.resize(status == CM_OK ? buffer.size : 0);
      return status;
    }
    result.resize(buffer.size);
  }
  return CM_E_TOO_SMALL;
}

struct Core {
  cm_host_context *context = nullptr;
  const cm_log *log = nullptr;
  const cm_config *config = nullptr;
  const cm_services *services = nullptr;
  const cm_http *http = nullptr;
  const cm_jobs *jobs = nullptr;
};

Core core;
std::string greeting = "Hello";
uint32_t stopped;

// ---- the service ----

cm_status greet(void *, cm_text name, cm_buffer *result) noexcept {
  CM_GUARD(stopped);
  return barrier(nullptr, [&] {
    if (name.size > 256) throw Failure{CM_E_TOO_LARGE, "the name may have 256 bytes"};
    std::string answer = greeting + ", " + std::string(view(name)) + "!";
    result->size = answer.size();
    if (answer.size() > result->capacity) throw Failure{CM_E_TOO_SMALL, ""};
    std::memcpy(result->data, answer.data(), answer.size());
  });
}

const hellocpp_service service = {CM_HEAD(hellocpp_service, 1), greet};

// ---- the route ----

void request(void *, cm_handle request, cm_bytes) noexcept {
  cm_status status = barrier(nullptr, [&] {
    std::string name, answer;
    cm_status found = read(name, [&](cm_buffer *buffer) {
      return core.http->request_get(core.context, request, CM_REQUEST_PARAMETER, text("name"), buffer);
    });
    if (found == CM_OK) found = read(answer, [&](cm_buffer *buffer) { return greet(nullptr, text(name), buffer); });
    if (found != CM_OK) throw Failure{found, "no greeting"};
    core.http->respond(core.context, request, 200, text("content-type: text/plain; charset=utf-8"), bytes(answer));
  });
  if (status != CM_OK)
    core.http->respond_problem(core.context, request, 400, text("invalid"), text("the name may have 256 bytes"));
}

const cm_route_callbacks route = {CM_HEAD(cm_route_callbacks, 1), request, nullptr, nullptr, nullptr, nullptr};

// ---- the job ----

void run(void *, cm_handle attempt, cm_text, cm_bytes) noexcept {
  for (uint32_t step = 1; step <= 10; step++) core.jobs->progress(core.context, attempt, step * 100, text("counting"));
  core.jobs->log(core.context, attempt, text("counted to ten"));
  core.jobs->finish(core.context, attempt, CM_JOB_SUCCEEDED, text("{\"counted\":10}"), text(""), text(""));
}

// There is nothing to interrupt: `run` ends the attempt before it returns.
void cancel(void *, cm_handle) noexcept {}

const cm_job_callbacks job = {CM_HEAD(cm_job_callbacks, 1), run, cancel, nullptr};

// ---- the plugin ----

/// A table of the core, or an exception.
template <typename Table>
const Table *table(const cm_host *host, const char *identifier) {
  const void *found = nullptr;
  cm_error error{};
  cm_status status = host->interface_get(host->context, text(identifier), 0, &found, &error);
  if (status != CM_OK) throw Failure{status, std::string(error.text, error.text_size)};
  return static_cast<const Table *>(found);
}

void check(cm_status status, const cm_error &error) {
  if (status != CM_OK) throw Failure{status, std::string(error.text, error.text_size)};
}

cm_status load(void *, const cm_host *host, cm_error *error) noexcept {
  return barrier(error, [&] {
    if (!CM_HAS(host, interface_get)) throw Failure{CM_E_UNSUPPORTED, "a core without interface_get"};
    core.context = host->context;
    CM_STARTED(stopped);
    core.log = table<cm_log>(host, CM_INTERFACE_LOG);
    core.config = table<cm_config>(host, CM_INTERFACE_CONFIG);
    core.services = table<cm_services>(host, CM_INTERFACE_SERVICES);
    core.http = table<cm_http>(host, CM_INTERFACE_HTTP);
    // What is used later is looked for once, here: after this no call needs a check.
    if (!CM_HAS(core.log, write) || !CM_HAS(core.config, get) || !CM_HAS(core.services, publish) ||
        !CM_HAS(core.http, route_add) || !CM_HAS(core.http, request_get) || !CM_HAS(core.http, respond) ||
        !CM_HAS(core.http, respond_problem))
      throw Failure{CM_E_UNSUPPORTED, "the core is too old for hellocpp"};

    std::string configured;
    cm_status status = read(configured, [](cm_buffer *buffer) {
      return core.config->get(core.context, text("/greeting"), buffer);
    });
    if (status == CM_OK) greeting = configured;
    else if (status != CM_E_NOT_FOUND) throw Failure{status, "the greeting cannot be read"};

    cm_error why{};
    cm_handle handle;
    check(core.services->publish(core.context, text(HELLOCPP_SERVICE), &service.head, nullptr, &why), why);
    check(core.http->route_add(core.context,
                               text(R"({"method":"GET","path":"/api/v1/hellocpp/{name}","right":"hellocpp.read",)"
                                    R"("operation":{"summary":"Greets somebody.","responses":)"
                                    R"({"200":{"description":"The greeting."}}}})"),
                               &route, nullptr, &handle, &why), why);

    // Where jobs are not granted, or the core has none, the rest works without.
    const void *jobs = nullptr;
    if (host->interface_get(host->context, text(CM_INTERFACE_JOBS), 0, &jobs, nullptr) != CM_OK) return;
    core.jobs = static_cast<const cm_jobs *>(jobs);
    if (!CM_HAS(core.jobs, kind_add) || !CM_HAS(core.jobs, progress) || !CM_HAS(core.jobs, log) ||
        !CM_HAS(core.jobs, finish))
      return;
    check(core.jobs->kind_add(core.context,
                              text(R"({"name":"hellocpp.count","summary":"Counts to ten.","guarantee":"idempotent"})"),
                              &job, nullptr, &handle, &why), why);
  });
}

cm_status start(void *, cm_error *) noexcept {
  core.log->write(core.context, CM_LOG_INFO, text("hellocpp.started"), text(""));
  return CM_OK;
}

void stop(void *) noexcept { CM_STOPPED(stopped); }

const cm_plugin plugin = {
    CM_HEAD(cm_plugin, 1), nullptr, CM_PLUGIN_ID, CM_PLUGIN_VERSION, load, start, nullptr, nullptr, stop,
};

}  // namespace

extern "C" CM_EXPORT const cm_plugin *cm_plugin_entry(uint32_t host_abi_major, uint32_t) {
  return host_abi_major == CM_ABI_MAJOR ? &plugin : nullptr;
}
