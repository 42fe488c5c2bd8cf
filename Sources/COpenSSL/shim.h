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
#include <openssl/params.h>
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
