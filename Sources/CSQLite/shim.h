// SQLite 3 as Swift sees it. SQLITE_TRANSIENT is a cast macro, sqlite3_config and sqlite3_db_config
// are variadic: Swift imports none of them.
#ifndef CM_CSQLITE_SHIM_H
#define CM_CSQLITE_SHIM_H

#include <sqlite3.h>

/// Binds bytes that SQLite copies before the call returns.
static inline int cm_sqlite_bind_blob_copy(sqlite3_stmt *statement, int index, const void *bytes, int count) {
    return sqlite3_bind_blob(statement, index, bytes, count, SQLITE_TRANSIENT);
}

/// Binds UTF-8 text that SQLite copies before the call returns.
static inline int cm_sqlite_bind_text_copy(sqlite3_stmt *statement, int index, const void *text, int count) {
    return sqlite3_bind_text(statement, index, (const char *)text, count, SQLITE_TRANSIENT);
}

/// Binds bytes that lie still until the statement has run and been reset.
static inline int cm_sqlite_bind_blob_in_place(sqlite3_stmt *statement, int index, const void *bytes, int count) {
    return sqlite3_bind_blob(statement, index, bytes, count, SQLITE_STATIC);
}

/// Binds UTF-8 text that lies still until the statement has run and been reset.
static inline int cm_sqlite_bind_text_in_place(sqlite3_stmt *statement, int index, const void *text, int count) {
    return sqlite3_bind_text(statement, index, (const char *)text, count, SQLITE_STATIC);
}

/// From now on closing the last connection neither moves the write-ahead log into the database nor removes it.
static inline int cm_sqlite_keep_log_on_close(sqlite3 *database) {
    return sqlite3_db_config(database, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, (int *)0);
}

/// Once, before the first connection: no locks inside connections (each is used by one thread), and no global memory
/// statistics, whose lock all connections would share.
static inline int cm_sqlite_prepare_library(void) {
    sqlite3_config(SQLITE_CONFIG_MULTITHREAD);
    sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
    return sqlite3_initialize();
}

#endif
