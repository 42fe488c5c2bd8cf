// TLS: the macros of OpenSSL that Transport needs, as functions.
#ifndef CM_COPENSSL_TLS_H
#define CM_COPENSSL_TLS_H

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>

/// TLS 1.2 with forward secrecy and authenticated ciphers, or TLS 1.3; nothing that a renegotiation, a compression or
/// a session ticket could add. Buffers of idle connections are given back (32 KiB each).
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
