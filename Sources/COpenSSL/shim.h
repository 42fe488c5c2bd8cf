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
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

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
#pragma clang diagnostic pop

// ---- Crypto: keys (macros and variadic functions) ----
static inline EVP_PKEY *cm_p256_generate(void) { return EVP_EC_gen("P-256"); }
static inline long cm_bio_memory(BIO *bio, const unsigned char **start) {
    char *data = NULL;
    long count = BIO_get_mem_data(bio, &data);
    *start = (const unsigned char *)data;
    return count;
}

// ---- End of Crypto ----

#include "tls.h"

#endif
