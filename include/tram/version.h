/* The version of the headers; tram_version() tells that of the library that was loaded. */
#ifndef TRAM_VERSION_H
#define TRAM_VERSION_H

#include <tram/export.h>

#define TRAM_VERSION_MAJOR  0
#define TRAM_VERSION_MINOR  1
#define TRAM_VERSION_PATCH  0
#define TRAM_VERSION_STRING "0.1.0"

TRAM_BEGIN_DECLS

/* The library's version, "MAJOR.MINOR.PATCH". Any thread. */
TRAM_API const char *tram_version(void);

TRAM_END_DECLS

#endif
