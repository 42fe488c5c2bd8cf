// One file over TLS in bare C: the sender reads and encrypts, the receiver decrypts, writes beside the target, syncs and
// renames. No hash, no resume, no protocol: the least that a durable copy can cost.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cfloor.h"
#include "floor.h"

enum { PIECE = 256 << 10 };

/// A server's context with a certificate of its own that nobody checks.
static SSL_CTX *server_context(void) {
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, key);
    X509_NAME *name = X509_get_subject_name(certificate);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"floor", -1, -1, 0);
    X509_set_issuer_name(certificate, name);
    X509_sign(certificate, key, EVP_sha256());
    int good = SSL_CTX_use_certificate(context, certificate) == 1 && SSL_CTX_use_PrivateKey(context, key) == 1;
    X509_free(certificate);
    EVP_PKEY_free(key);
    return good ? context : NULL;
}

static int write_all(int fd, const unsigned char *bytes, size_t count) {
    while (count) {
        ssize_t done = write(fd, bytes, count);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return -1;
        bytes += done;
        count -= (size_t)done;
    }
    return 0;
}

static int read_all(SSL *ssl, unsigned char *bytes, size_t count) {
    while (count) {
        int got = SSL_read(ssl, bytes, (int)count);
        if (got <= 0) return -1;
        bytes += got;
        count -= (size_t)got;
    }
    return 0;
}

/// The bytes of one connection into `path`; 0 when they are durable there.
static int receive(SSL *ssl, const char *path, unsigned char *piece) {
    unsigned char head[8];
    if (read_all(ssl, head, sizeof head) < 0) return -1;
    uint64_t left = 0;
    for (int i = 0; i < 8; i++) left = left << 8 | head[i];
    char part[4096];
    if (snprintf(part, sizeof part, "%s.part", path) >= (int)sizeof part) return -1;
    int file = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0) return -1;
    int failed = 0;
    while (left && !failed) {
        int got = SSL_read(ssl, piece, (int)(left < PIECE ? left : PIECE));
        failed = got <= 0 || write_all(file, piece, (size_t)got) < 0;
        if (!failed) left -= (uint64_t)got;
    }
    failed = failed || fsync(file) < 0 || rename(part, path) < 0;
    close(file);
    char *slash = strrchr(part, '/');
    if (slash) *slash = 0;
    int directory = open(slash ? (slash == part ? "/" : part) : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    failed = failed || directory < 0 || fsync(directory) < 0;
    if (directory >= 0) close(directory);
    return failed ? -1 : 0;
}

void cm_floor_file(int listener, const char *path) {
    SSL_CTX *context = server_context();
    unsigned char *piece = malloc(PIECE);
    if (!context || !piece) exit(1);
    for (;;) {
        int fd = floor_accept(listener);
        if (fd < 0) continue;
        SSL *ssl = SSL_new(context);
        SSL_set_fd(ssl, fd);
        if (SSL_accept(ssl) == 1 && receive(ssl, path, piece) == 0) {
            SSL_write(ssl, "y", 1);
            SSL_shutdown(ssl);
        }
        SSL_free(ssl);
        close(fd);
    }
}

int cm_load_file(uint16_t port, const char *path, struct cm_load_result *result) {
    memset(result, 0, sizeof *result);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (file < 0 || fstat(file, &status) < 0) return -1;
    unsigned char *piece = malloc(PIECE), head[8], answer = 0;
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    uint64_t begin = floor_now();
    int fd = floor_connect(port);
    SSL *ssl = context ? SSL_new(context) : NULL;
    int failed = !piece || fd < 0 || !ssl || SSL_set_fd(ssl, fd) != 1 || SSL_connect(ssl) != 1;
    uint64_t left = (uint64_t)status.st_size;
    for (int i = 0; i < 8; i++) head[i] = (unsigned char)(left >> (56 - 8 * i));
    failed = failed || SSL_write(ssl, head, sizeof head) != sizeof head;
    while (left && !failed) {
        ssize_t got = read(file, piece, PIECE);
        failed = got <= 0 || SSL_write(ssl, piece, (int)got) != (int)got;
        if (!failed) left -= (uint64_t)got;
    }
    failed = failed || SSL_read(ssl, &answer, 1) != 1 || answer != 'y';
    result->count = (uint64_t)status.st_size;
    result->nanoseconds = floor_now() - begin;
    SSL_free(ssl);
    SSL_CTX_free(context);
    if (fd >= 0) close(fd);
    close(file);
    free(piece);
    return failed ? -1 : 0;
}
