/* A plugin that brings secrets from elsewhere: client-manager.secret-source/1 over the files of one directory.
 *
 * `fetch` runs on a thread of its user's. It reads what `load` wrote once, opens, reads and closes: nothing is kept, nothing is
 * logged. A reference is a plain name, so that nothing beside the directory can be meant. */
#include "client_manager_secret_source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEXT(literal) ((cm_text){(literal), sizeof(literal) - 1})

static char directory[256];
static uint32_t stopped;

static cm_status fail(cm_error *error, cm_status status, const char *text) {
  if (error) {
    memset(error, 0, sizeof *error);
    error->status = status;
    error->text_size = (uint32_t)strnlen(text, sizeof error->text);
    memcpy(error->text, text, error->text_size);
  }
  return status;
}

/* Letters, digits and . _ - only, the first no dot: no path, no hidden file. */
static int is_name(cm_text reference) {
  if (reference.size == 0 || reference.size > 128 || reference.data[0] == '.') return 0;
  for (uint64_t i = 0; i < reference.size; i++) {
    char c = reference.data[i];
    if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-')) return 0;
  }
  return 1;
}

static cm_status fetch(void *context, cm_text reference, cm_buffer *value, cm_error *error) {
  (void)context;
  CM_GUARD(stopped);
  if (!is_name(reference)) return fail(error, CM_E_INVALID, "a reference is a file's name");
  char name[129];
  memcpy(name, reference.data, reference.size);
  name[reference.size] = 0;
  int folder = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return fail(error, CM_E_UNAVAILABLE, "the directory cannot be opened");
  int file = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  int why = errno;
  close(folder);
  if (file < 0)
    return why == ENOENT ? fail(error, CM_E_NOT_FOUND, "there is no such file") : fail(error, CM_E_UNAVAILABLE, "the file cannot be opened");
  struct stat found;
  cm_status status = CM_OK;
  if (fstat(file, &found) != 0 || !S_ISREG(found.st_mode)) status = fail(error, CM_E_INVALID, "it is no regular file");
  if (status == CM_OK) {
    value->size = (uint64_t)found.st_size;
    if (value->size > value->capacity) status = CM_E_TOO_SMALL;
  }
  uint64_t filled = 0;
  while (status == CM_OK && filled < value->size) {
    ssize_t count = read(file, value->data + filled, value->size - filled);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) status = fail(error, CM_E_UNAVAILABLE, "the file cannot be read");
    else if (count == 0) break;
    else filled += (uint64_t)count;
  }
  close(file);
  if (status == CM_OK) value->size = filled;
  return status;
}

static const cm_secret_source source = {CM_HEAD(cm_secret_source, 1), fetch};

static cm_status load(void *context, const cm_host *core, cm_error *error) {
  (void)context;
  const void *config_table = NULL, *services_table = NULL;
  cm_status status;
  if (!CM_HAS(core, interface_get)) return fail(error, CM_E_UNSUPPORTED, "a core without interface_get");
  if ((status = core->interface_get(core->context, TEXT(CM_INTERFACE_CONFIG), 0, &config_table, error))) return status;
  if ((status = core->interface_get(core->context, TEXT(CM_INTERFACE_SERVICES), 0, &services_table, error))) return status;
  const cm_config *config = config_table;
  const cm_services *services = services_table;
  if (!CM_HAS(config, get) || !CM_HAS(services, publish)) return fail(error, CM_E_UNSUPPORTED, "the core is too old");
  cm_buffer room = {(uint8_t *)directory, sizeof directory - 1, 0};
  status = config->get(core->context, TEXT("/directory"), &room);
  if (status == CM_E_NOT_FOUND) room.size = (uint64_t)snprintf(directory, sizeof directory, "/run/secrets");
  else if (status != CM_OK) return fail(error, status, "the directory's path may have 255 bytes");
  directory[room.size] = 0;
  CM_STARTED(stopped);
  return services->publish(core->context, TEXT(CM_SERVICE_SECRET_SOURCE), &source.head, NULL, error);
}

static cm_status start(void *context, cm_error *error) {
  (void)context, (void)error;
  return CM_OK;
}

static void stop(void *context) {
  (void)context;
  CM_STOPPED(stopped);
}

static const cm_plugin plugin = {
    CM_HEAD(cm_plugin, 1), NULL, CM_PLUGIN_ID, CM_PLUGIN_VERSION, load, start, NULL, NULL, stop,
};

CM_EXPORT const cm_plugin *cm_plugin_entry(uint32_t host_abi_major, uint32_t host_abi_minor) {
  (void)host_abi_minor;
  return host_abi_major == CM_ABI_MAJOR ? &plugin : NULL;
}
