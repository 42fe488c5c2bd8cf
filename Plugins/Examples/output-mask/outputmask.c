/* An output filter: what looks like a key becomes asterisks, before it is stored and before anybody sees it.
 *
 * `filter` runs on the core's loops, several at once, and must be quick: it only reads the patterns, which `load` has written, and
 * keeps nothing between two calls. What may be the beginning of a key is held back: the core shows it again with what follows,
 * so a border between two pieces is none. Lengths stay, so offsets stay what the program wrote. */
#include "client_manager_plugin.h"

#include <stdio.h>
#include <string.h>

#define TEXT(literal) ((cm_text){(literal), sizeof(literal) - 1})
#define PATTERNS 16
#define LONGEST 128 /* well below CM_OUTPUT_HELD */

static struct {
  uint64_t size;
  char text[LONGEST];
} patterns[PATTERNS];
static int count;
static const char *const known[] = {"AKIA@@@@@@@@@@@@@@@@", "ASIA@@@@@@@@@@@@@@@@"};

static cm_status fail(cm_error *error, cm_status status, const char *text) {
  if (error) {
    memset(error, 0, sizeof *error);
    error->status = status;
    error->text_size = (uint32_t)strnlen(text, sizeof error->text);
    memcpy(error->text, text, error->text_size);
  }
  return status;
}

static int fits(char wanted, uint8_t byte) {
  int digit = byte >= '0' && byte <= '9';
  if (wanted == '#') return digit;
  if (wanted == '@') return digit || (byte >= 'A' && byte <= 'Z');
  return (uint8_t)wanted == byte;
}

static int64_t filter(void *context, const cm_output_piece *piece, uint8_t *bytes, uint64_t size) {
  (void)context;
  for (uint64_t place = 0; place < size;) {
    uint64_t longest = 0;
    int open = 0; /* A pattern goes on behind the end of what is there. */
    for (int i = 0; i < count; i++) {
      uint64_t same = 0;
      while (same < patterns[i].size && place + same < size && fits(patterns[i].text[same], bytes[place + same])) same++;
      if (same == patterns[i].size) {
        if (same > longest) longest = same;
      } else if (place + same == size) {
        open = 1;
      }
    }
    if (open && !(piece->flags & CM_OUTPUT_LAST)) return (int64_t)(size - place);
    memset(bytes + place, '*', longest);
    place += longest ? longest : 1;
  }
  return 0;
}

static const cm_output_filter_callbacks callbacks = {CM_HEAD(cm_output_filter_callbacks, 1), filter, NULL};

static cm_status configure(const cm_host *core, const cm_config *config, cm_error *error) {
  for (count = 0; count < PATTERNS; count++) {
    char pointer[32];
    cm_text name = {pointer, (uint64_t)snprintf(pointer, sizeof pointer, "/patterns/%d", count)};
    cm_buffer room = {(uint8_t *)patterns[count].text, LONGEST, 0};
    cm_status status = config->get(core->context, name, &room);
    if (status == CM_E_NOT_FOUND) break;
    if (status != CM_OK) return fail(error, status, "a pattern is a text of 128 bytes at most");
    patterns[count].size = room.size;
  }
  if (count > 0) return CM_OK;
  for (; count < (int)(sizeof known / sizeof *known); count++) {
    patterns[count].size = strlen(known[count]);
    memcpy(patterns[count].text, known[count], patterns[count].size);
  }
  return CM_OK;
}

static cm_status load(void *context, const cm_host *core, cm_error *error) {
  (void)context;
  const void *config = NULL, *table = NULL;
  cm_status status;
  if (!CM_HAS(core, interface_get)) return fail(error, CM_E_UNSUPPORTED, "a core without interface_get");
  if ((status = core->interface_get(core->context, TEXT(CM_INTERFACE_CONFIG), 0, &config, error))) return status;
  if ((status = core->interface_get(core->context, TEXT(CM_INTERFACE_COMMANDS), 0, &table, error))) return status;
  const cm_commands *commands = table;
  if (!CM_HAS((const cm_config *)config, get) || !CM_HAS(commands, filter_add))
    return fail(error, CM_E_UNSUPPORTED, "the core is too old: it has no output filters");
  if ((status = configure(core, config, error))) return status;
  cm_handle handle;
  /* In `load`: a new version then takes over from the old one without a gap. */
  return commands->filter_add(core->context, &callbacks, NULL, &handle, error);
}

static cm_status start(void *context, cm_error *error) {
  (void)context, (void)error;
  return CM_OK;
}

/* No call comes any more when this runs; the filter goes with the plugin. */
static void stop(void *context) { (void)context; }

static const cm_plugin plugin = {
    CM_HEAD(cm_plugin, 1), NULL, CM_PLUGIN_ID, CM_PLUGIN_VERSION, load, start, NULL, NULL, stop,
};

CM_EXPORT const cm_plugin *cm_plugin_entry(uint32_t host_abi_major, uint32_t host_abi_minor) {
  (void)host_abi_minor;
  return host_abi_major == CM_ABI_MAJOR ? &plugin : NULL;
}
