/* cm.crypto/1: hashes against known answers, sealing bound to plugin and label, over a restart. */
#ifdef OTHER
#define ID "com.example.burglar"
#define AREA "testburglar"
#define CAPABILITIES "[\"http\",\"secrets\"]"
#elif defined(PLAIN)
#define ID "com.example.plain"
#define AREA "testplain"
#define CAPABILITIES "[\"http\"]"
#else
#define ID "com.example.safe"
#define AREA "testcrypto"
#define CAPABILITIES "[\"http\",\"secrets\"]"
#endif
#define VERSION "1.0.0"
#include "check.h"
NOTE(CAPABILITIES);

static const cm_crypto *crypto;

static void hashes(void) {
  static uint8_t noise[64], none[64];
  uint8_t digest[32];
  char hex[65];
  GIVES(CM_OK, crypto->random(H, noise, sizeof(noise)));
  HOLDS(memcmp(noise, none, sizeof(noise)) != 0);
  GIVES(CM_E_TOO_LARGE, crypto->random(H, noise, (1u << 20) + 1));
  GIVES(CM_OK, crypto->sha256(H, B("abc"), digest));
  for (int i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
  HOLDS(strcmp(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad") == 0);
  GIVES(CM_OK, crypto->sha256(H, (cm_bytes){ NULL, 0 }, digest));
  HOLDS(digest[0] == 0xe3 && digest[31] == 0x55);
  /* RFC 4231, test case 2. */
  GIVES(CM_OK, crypto->hmac_sha256(H, B("Jefe"), B("what do ya want for nothing?"), digest));
  HOLDS(digest[0] == 0x5b && digest[1] == 0xdc && digest[31] == 0x43);
  GIVES(CM_E_TOO_LARGE, crypto->sha256(H, (cm_bytes){ noise, (64u << 20) + 1 }, digest));
}

static uint64_t kept(uint8_t *bytes, uint64_t room) {
  FILE *file = fopen(getenv("CM_TEST_SEALED"), "rb");
  uint64_t size = file ? fread(bytes, 1, room, file) : 0;
  if (file) fclose(file);
  return size;
}

static void seal(void) {
  static uint8_t big[(64 << 10) + 1], sealed_big[70000];
  uint8_t bytes[256], again[256];
  cm_buffer sealed = ROOM(bytes), second = ROOM(again), none = NO_ROOM, large = ROOM(sealed_big);
  GIVES(CM_OK, crypto->seal(H, T("door"), B("secret"), &sealed, &error));
  HOLDS(memmem(bytes, sealed.size, "secret", 6) == NULL);
  GIVES(CM_OK, crypto->seal(H, T("door"), B("secret"), &second, &error));
  HOLDS(memcmp(bytes, again, sealed.size) != 0);
  GIVES(CM_E_TOO_SMALL, crypto->seal(H, T("door"), B("secret"), &none, &error));
  HOLDS(none.size == sealed.size);
  GIVES(CM_E_INVALID, crypto->seal(H, T(""), B("secret"), &sealed, &error));
  GIVES(CM_E_TOO_LARGE, crypto->seal(H, T("door"), (cm_bytes){ big, sizeof(big) }, &large, &error));
  GIVES(CM_OK, crypto->seal(H, T("door"), (cm_bytes){ big, sizeof(big) - 1 }, &large, &error));
  GIVES(CM_OK, crypto->seal(H, T("door"), B("secret"), &sealed, &error));
  FILE *file = fopen(getenv("CM_TEST_SEALED"), "wb");
  HOLDS(file && fwrite(bytes, 1, sealed.size, file) == sealed.size && fclose(file) == 0);
}

static void unseal(void) {
  uint8_t bytes[256], text[64];
  cm_buffer room = ROOM(text), none = NO_ROOM;
  cm_bytes sealed = { bytes, kept(bytes, sizeof(bytes)) };
  GIVES(CM_OK, crypto->unseal(H, T("door"), sealed, &room, &error));
  HOLDS(same(&room, "secret"));
  GIVES(CM_E_TOO_SMALL, crypto->unseal(H, T("door"), sealed, &none, &error));
  HOLDS(none.size == 6);
  GIVES(CM_E_DENIED, crypto->unseal(H, T("window"), sealed, &room, &error));
  CODE("seal-broken");
  bytes[sealed.size - 1] ^= 1;
  GIVES(CM_E_DENIED, crypto->unseal(H, T("door"), sealed, &room, &error));
  GIVES(CM_E_INVALID, crypto->unseal(H, T("door"), B("short"), &room, &error));
}

/* A key of the plugin's own: no capability is needed, and nothing but key and associated bytes opens it. */
static void own_key(void) {
  static uint8_t big[70000], encrypted_big[70028], plain_big[70000];
  uint8_t key[32] = "thirty-two bytes, no more, no le", bytes[64], text[64];
  cm_buffer encrypted = ROOM(bytes), plain = ROOM(text), none = NO_ROOM, large = ROOM(encrypted_big), back = ROOM(plain_big);
  cm_bytes k = { key, sizeof(key) };
  GIVES(CM_OK, crypto->encrypt(H, k, B("name"), B("secret"), &encrypted, &error));
  HOLDS(encrypted.size == 6 + 28 && memmem(bytes, encrypted.size, "secret", 6) == NULL);
  cm_bytes found = { bytes, encrypted.size };
  GIVES(CM_OK, crypto->decrypt(H, k, B("name"), found, &plain, &error));
  HOLDS(same(&plain, "secret"));
  GIVES(CM_E_TOO_SMALL, crypto->decrypt(H, k, B("name"), found, &none, &error));
  HOLDS(none.size == 6);
  GIVES(CM_E_DENIED, crypto->decrypt(H, k, B("other"), found, &plain, &error));
  CODE("seal-broken");
  key[31] ^= 1;
  GIVES(CM_E_DENIED, crypto->decrypt(H, k, B("name"), found, &plain, &error));
  key[31] ^= 1;
  bytes[20] ^= 1;
  GIVES(CM_E_DENIED, crypto->decrypt(H, k, B("name"), found, &plain, &error));
  GIVES(CM_E_INVALID, crypto->decrypt(H, k, B("name"), B("short"), &plain, &error));
  GIVES(CM_E_INVALID, crypto->encrypt(H, B("short"), B("name"), B("secret"), &encrypted, &error));
  GIVES(CM_E_TOO_LARGE, crypto->encrypt(H, k, (cm_bytes){ big, 4097 }, B("secret"), &encrypted, &error));
  GIVES(CM_OK, crypto->encrypt(H, k, B(""), (cm_bytes){ big, sizeof(big) }, &large, &error));
  GIVES(CM_OK, crypto->decrypt(H, k, B(""), (cm_bytes){ encrypted_big, large.size }, &back, &error));
  HOLDS(back.size == sizeof(big));
}

static int check(cm_handle request, const char *step) {
  uint8_t bytes[256], text[64];
  cm_buffer room = ROOM(text);
  (void)request;
  if (strcmp(step, "hashes") == 0) hashes();
  else if (strcmp(step, "own-key") == 0) own_key();
  else if (strcmp(step, "seal") == 0) seal();
  else if (strcmp(step, "unseal") == 0) unseal();
  else if (strcmp(step, "burglar") == 0) {
    cm_bytes sealed = { bytes, kept(bytes, sizeof(bytes)) };
    GIVES(CM_E_DENIED, crypto->unseal(H, T("door"), sealed, &room, &error));
    CODE("seal-broken");
  } else if (strcmp(step, "plain") == 0) {
    hashes();
    own_key();
    GIVES(CM_E_DENIED, crypto->seal(H, T("door"), B("secret"), &room, &error));
    CODE("plugin-not-granted");
    GIVES(CM_E_DENIED, crypto->unseal(H, T("door"), B("secret"), &room, &error));
  } else HOLDS(!"a known step");
  return 1;
}

static cm_status on_load(void) {
  crypto = (const cm_crypto *)interface(CM_INTERFACE_CRYPTO, CM_OK);
  return crypto ? CM_OK : CM_E_UNSUPPORTED;
}

static cm_status on_start(void) { return CM_OK; }
static void on_stop(void) {}
