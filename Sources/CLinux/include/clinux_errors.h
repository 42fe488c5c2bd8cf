// Errors: strerror_r has two incompatible forms, and Swift imports neither.
#ifndef CM_CLINUX_ERRORS_H
#define CM_CLINUX_ERRORS_H

/// The kernel's reason for an errno, untranslated and thread-safe; NULL for an unknown number.
const char *_Nullable cm_error_text(int code);

#endif
