// SQLite 3 as Swift sees it. SQLITE_TRANSIENT is a cast macro and sqlite3_config is variadic: Swift imports neither.
#ifndef CM_CSQLITE_SHIM_H
#define CM_CSQLITE_SHIM_H

#include <sqlite3.h>

/// Binds bytes that SQLite copies before the call returns.
static inline int cm_sqlite_bind_blob_copy(sqlite3_stmt *statement, int index, const void *bytes, int count) {
    return sqlite3_bind_blob(statement, index, bytes, count, SQLITE_TRANSIENT);
}

/// Binds UTF-8 text that SQLite copies before the call returns.
static inline int cm_sqlite_bind_text_copy(sqlite3_stmt *statement, int index, const char *text, int count) {
    return sqlite3_bind_text(statement, index, text, count, SQLITE_TRANSIENT);
}

/// Once, before the first connection: no locks inside connections (each is used by one thread), and no global memory
/// statistics, whose lock all connections would share.
static inline int cm_sqlite_prepare_library(void) {
    sqlite3_config(SQLITE_CONFIG_MULTITHREAD);
    sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
    return sqlite3_initialize();
}

#endif
