/* Shared by the hostile guests of plugins-4: a plugin that behaves, and hooks in which each guest does not. */
#ifndef GUEST_H
#define GUEST_H
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "client_manager_plugin.h"

#ifndef ID
#define ID "com.guests.guest"
#endif
#ifndef VERSION
#define VERSION "1.0.0"
#endif
#ifndef AREA
#define AREA "guest"
#endif
#ifndef MORE /* further members of the note, each with its comma in front */
#define MORE ""
#endif

CM_PLUGIN_NOTE("{\"id\":\"" ID "\",\"version\":\"" VERSION "\",\"capabilities\":[\"http\",\"events\"" CAPABILITIES "],\"routes\":[\"" AREA "\"]" MORE "}");

static const cm_host *host;
static const cm_http *http;
static const cm_log *logger;
static const cm_services *services;
static const cm_executor *executor;

static inline cm_text text(const char *string) {
  cm_text result = {string, strlen(string)};
  return result;
}

static inline const void *interface_of(const char *identifier) {
  const void *table = NULL;
  return host->interface_get(host->context, text(identifier), 0, &table, NULL) == CM_OK ? table : NULL;
}

static inline cm_status answer(cm_handle request, const char *body) {
  cm_bytes bytes = {(const uint8_t *)body, strlen(body)};
  return http->respond(host->context, request, 200, text("content-type: application/json"), bytes);
}

/* GET /api/v1/AREA/NAME answered by `callbacks`. */
static inline cm_status route(const char *name, const char *more, const cm_route_callbacks *callbacks, cm_error *error) {
  char specification[1024];
  cm_handle handle;
  snprintf(specification, sizeof specification,
           "{\"method\":\"GET\",\"path\":\"/api/v1/" AREA "/%s\",\"right\":\"guest.read\",%s\"operation\":{\"summary\":\"%s\",\"parameters\":[{\"name\":\"how\",\"in\":\"query\",\"schema\":{\"type\":\"string\"}}],\"responses\":{\"200\":{\"description\":\"Fine.\"}}}}",
           name, more, name);
  return http->route_add(host->context, text(specification), callbacks, NULL, &handle, error);
}

static inline void take_interfaces(const cm_host *given) {
  host = given;
  http = (const cm_http *)interface_of(CM_INTERFACE_HTTP);
  logger = (const cm_log *)interface_of(CM_INTERFACE_LOG);
  services = (const cm_services *)interface_of(CM_INTERFACE_SERVICES);
  executor = (const cm_executor *)interface_of(CM_INTERFACE_EXECUTOR);
}

static inline void say_ok(void *context, cm_handle request, cm_bytes body) {
  (void)context;
  (void)body;
  answer(request, "{\"ok\":true,\"version\":\"" VERSION "\"}");
}
static const cm_route_callbacks ok_callbacks = {CM_HEAD(cm_route_callbacks, 1), say_ok, NULL, NULL, NULL, NULL};

#endif
