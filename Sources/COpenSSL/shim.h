// OpenSSL 3.0 as Swift sees it. What OpenSSL offers only as a macro stands here as a static inline function,
// because Swift imports no function-like macros.
#ifndef CM_COPENSSL_SHIM_H
#define CM_COPENSSL_SHIM_H

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>
#include <openssl/md5.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <string.h>

// ---- Crypto: hashes ----
// The EVP interface looks its implementation up by name on each call, which costs more than hashing a token does; the
// older one works on a plain structure. It is marked deprecated in 3.0 but is the same code underneath.
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wdeprecated-declarations"
static inline void cm_sha256_begin(SHA256_CTX *state) { SHA256_Init(state); }
static inline void cm_sha256_update(SHA256_CTX *state, const void *bytes, size_t count) {
    SHA256_Update(state, bytes, count);
}
static inline void cm_sha256_finish(SHA256_CTX *state, void *digest32) {
    SHA256_Final((unsigned char *)digest32, state);
}
static inline void cm_md5_begin(MD5_CTX *state) { MD5_Init(state); }
static inline void cm_md5_update(MD5_CTX *state, const void *bytes, size_t count) { MD5_Update(state, bytes, count); }
static inline void cm_md5_finish(MD5_CTX *state, void *digest16) { MD5_Final((unsigned char *)digest16, state); }
/// The running state in a form that outlives the process and the machine: eight words and the count of bytes, both
/// big-endian, then the bytes that do not fill a block yet. 40 to 103 bytes; returns how many.
static inline size_t cm_sha256_export(const SHA256_CTX *state, unsigned char *output103) {
    for (int word = 0; word < 8; word++)
        for (int byte = 0; byte < 4; byte++) output103[4 * word + byte] = (unsigned char)(state->h[word] >> (24 - 8 * byte));
    uint64_t count = ((uint64_t)state->Nh << 32 | state->Nl) / 8;
    for (int byte = 0; byte < 8; byte++) output103[32 + byte] = (unsigned char)(count >> (56 - 8 * byte));
    memcpy(output103 + 40, state->data, state->num);
    return 40 + state->num;
}
/// Goes on from what `cm_sha256_export` wrote; 0 for bytes that it cannot have written.
static inline int cm_sha256_import(SHA256_CTX *state, const unsigned char *input, size_t size) {
    if (size < 40 || size > 103) return 0;
    uint64_t count = 0;
    for (int byte = 0; byte < 8; byte++) count = count << 8 | input[32 + byte];
    if (count >> 61 || count % 64 != size - 40) return 0;
    SHA256_Init(state);
    for (int word = 0; word < 8; word++) {
        state->h[word] = 0;
        for (int byte = 0; byte < 4; byte++) state->h[word] = state->h[word] << 8 | input[4 * word + byte];
    }
    state->Nl = (SHA_LONG)(count * 8);
    state->Nh = (SHA_LONG)(count * 8 >> 32);
    state->num = (unsigned)(size - 40);
    memcpy(state->data, input + 40, size - 40);
    return 1;
}
#pragma clang diagnostic pop

// ---- Crypto: keys (macros and variadic functions) ----
static inline EVP_PKEY *cm_p256_generate(void) { return EVP_EC_gen("P-256"); }
/// A P-256 public key from its uncompressed point (65 bytes), NULL if that is not on the curve. d2i_PUBKEY would try every
/// decoder of every provider, which costs ten times as much as checking a signature.
static inline EVP_PKEY *cm_p256_public(const unsigned char *point65) {
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, (char *)"prime256v1", 0),
        OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, (void *)point65, 65),
        OSSL_PARAM_construct_end(),
    };
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
    EVP_PKEY *key = NULL;
    if (context && EVP_PKEY_fromdata_init(context) == 1)
        EVP_PKEY_fromdata(context, &key, EVP_PKEY_PUBLIC_KEY, parameters);
    EVP_PKEY_CTX_free(context);
    return key;
}
static inline long cm_bio_memory(BIO *bio, const unsigned char **start) {
    char *data = NULL;
    long count = BIO_get_mem_data(bio, &data);
    *start = (const unsigned char *)data;
    return count;
}

// ---- End of Crypto ----

#include "tls.h"

#endif
