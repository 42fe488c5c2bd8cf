// TLS: the macros of OpenSSL that Transport needs, as functions.
#ifndef CM_COPENSSL_TLS_H
#define CM_COPENSSL_TLS_H

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>

/// TLS 1.2 with forward secrecy and authenticated ciphers, or TLS 1.3; nothing that a renegotiation or a compression could
/// add, and no session ticket unless it is asked for. Buffers of idle connections are given back (32 KiB each).
static inline int cm_tls_harden(SSL_CTX *context) {
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_options(
        context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(context, 0);
    return SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) == 1 &&
           SSL_CTX_set_cipher_list(context, "ECDHE+AESGCM:ECDHE+CHACHA20") == 1;
}
static inline int cm_tls_add_chain_certificate(SSL_CTX *context, X509 *certificate) {
    return (int)SSL_CTX_add1_chain_cert(context, certificate);
}
static inline int cm_tls_set_server_name(SSL *ssl, const char *name) { return (int)SSL_set_tlsext_host_name(ssl, name); }
static inline int cm_tls_has_extended_master_secret(SSL *ssl) { return SSL_get_extms_support(ssl) == 1; }

// ---- Session tickets (TLS 1.3 only) ----
typedef int (*cm_tls_ticket_callback)(SSL *, unsigned char *, unsigned char *, EVP_CIPHER_CTX *, EVP_MAC_CTX *, int);
/// Lets a server's context make and take stateless tickets of `seconds`; none is sent by itself. `owner` comes back from
/// `cm_tls_owner`; the context does not keep it alive. Any thread, before the first connection.
static inline void cm_tls_use_tickets(SSL_CTX *context, cm_tls_ticket_callback callback, void *owner, long seconds) {
    SSL_CTX_set_app_data(context, owner);
    SSL_CTX_clear_options(context, SSL_OP_NO_TICKET);
    SSL_CTX_set_timeout(context, seconds);
    SSL_CTX_set_tlsext_ticket_key_evp_cb(context, callback);
}
/// The owner that the connection's context was given, or NULL. Any thread.
static inline void *cm_tls_owner(const SSL *ssl) { return SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)); }
/// Prepares one ticket's cipher (AES-256-CBC) and code (HMAC-SHA-256) with 32 bytes of key each; `iv16` is made here when
/// sealing. 1, or 0 on failure. The contexts are OpenSSL's; any thread.
static inline int cm_tls_ticket_keys(
    EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, unsigned char *iv16, const unsigned char *cipherKey32,
    const unsigned char *macKey32, int isSealing) {
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *)macKey32, 32),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)"SHA256", 0),
        OSSL_PARAM_construct_end(),
    };
    if (isSealing && RAND_bytes(iv16, 16) != 1) return 0;
    return EVP_CipherInit_ex(cipher, EVP_aes_256_cbc(), NULL, cipherKey32, iv16, isSealing) == 1 &&
           EVP_MAC_CTX_set_params(mac, parameters) == 1;
}
typedef int (*cm_tls_session_callback)(SSL *, SSL_SESSION *);
/// Has a client's context give each ticket that a server sends to `callback`, which takes the session over by returning
/// 1. Nothing is kept in the context. Any thread, before the first connection.
static inline void cm_tls_collect_tickets(SSL_CTX *context, cm_tls_session_callback callback) {
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, callback);
}
/// A connection's own pointer; the connection does not keep it alive. On the connection's thread.
static inline void cm_tls_set_note(SSL *ssl, void *note) { SSL_set_app_data(ssl, note); }
static inline void *cm_tls_note(const SSL *ssl) { return SSL_get_app_data(ssl); }

static inline int cm_tls_is_13(const SSL *ssl) { return SSL_version(ssl) >= TLS1_3_VERSION; }
static inline void cm_bio_retry_read(BIO *bio) {
    BIO_clear_retry_flags(bio);
    BIO_set_retry_read(bio);
}
static inline void cm_bio_retry_write(BIO *bio) {
    BIO_clear_retry_flags(bio);
    BIO_set_retry_write(bio);
}
static inline void cm_bio_no_retry(BIO *bio) { BIO_clear_retry_flags(bio); }
static inline int cm_x509_stack_count(const STACK_OF(X509) *stack) { return stack ? sk_X509_num(stack) : 0; }
static inline X509 *cm_x509_stack_at(const STACK_OF(X509) *stack, int index) { return sk_X509_value(stack, index); }

#endif
