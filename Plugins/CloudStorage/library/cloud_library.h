/* What Swift cannot call by itself: libcurl's options take their value as a variable argument, so each kind of value gets a
 * function here. The digests are those of libcrypto, which libcurl has in the process already: the host's `cm.crypto/1` hashes
 * what lies in memory as a whole, a body that streams by does not. */
#ifndef CLOUD_LIBRARY_H
#define CLOUD_LIBRARY_H

#include <curl/curl.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

typedef size_t (*cloud_data_callback)(char *_Nullable data, size_t size, size_t count, void *_Nullable context);
typedef int (*cloud_seek_callback)(void *_Nullable context, curl_off_t offset, int origin);
typedef int (*cloud_progress_callback)(void *_Nullable context, curl_off_t down_total, curl_off_t down, curl_off_t up_total,
                                       curl_off_t up);

static inline void cloud_set_long(CURL *_Nonnull handle, CURLoption option, long value) {
  curl_easy_setopt(handle, option, value);
}
static inline void cloud_set_size(CURL *_Nonnull handle, CURLoption option, int64_t value) {
  curl_easy_setopt(handle, option, (curl_off_t)value);
}
/* libcurl keeps a copy. */
static inline void cloud_set_text(CURL *_Nonnull handle, CURLoption option, const char *_Nullable value) {
  curl_easy_setopt(handle, option, value);
}
/* libcurl keeps a copy. */
static inline void cloud_set_blob(CURL *_Nonnull handle, CURLoption option, const void *_Nonnull data, size_t size) {
  struct curl_blob blob = {(void *)data, size, CURL_BLOB_COPY};
  curl_easy_setopt(handle, option, &blob);
}
static inline void cloud_set_headers(CURL *_Nonnull handle, struct curl_slist *_Nullable headers) {
  curl_easy_setopt(handle, CURLOPT_HTTPHEADER, headers);
}
static inline void cloud_set_callbacks(CURL *_Nonnull handle, void *_Nonnull context, cloud_data_callback _Nonnull head,
                                       cloud_data_callback _Nonnull body, cloud_data_callback _Nonnull read,
                                       cloud_seek_callback _Nonnull seek, cloud_progress_callback _Nonnull progress) {
  curl_easy_setopt(handle, CURLOPT_HEADERFUNCTION, head);
  curl_easy_setopt(handle, CURLOPT_HEADERDATA, context);
  curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, body);
  curl_easy_setopt(handle, CURLOPT_WRITEDATA, context);
  curl_easy_setopt(handle, CURLOPT_READFUNCTION, read);
  curl_easy_setopt(handle, CURLOPT_READDATA, context);
  curl_easy_setopt(handle, CURLOPT_SEEKFUNCTION, seek);
  curl_easy_setopt(handle, CURLOPT_SEEKDATA, context);
  curl_easy_setopt(handle, CURLOPT_XFERINFOFUNCTION, progress);
  curl_easy_setopt(handle, CURLOPT_XFERINFODATA, context);
  curl_easy_setopt(handle, CURLOPT_NOPROGRESS, 0L);
}

#endif
