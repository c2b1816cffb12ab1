/* The version of tram: the one place where it stands. CMake reads it from here. */
#ifndef TRAM_VERSION_H
#define TRAM_VERSION_H

#define TRAM_VERSION_MAJOR  0
#define TRAM_VERSION_MINOR  1
#define TRAM_VERSION_PATCH  0
#define TRAM_VERSION_STRING "0.1.0"

#endif
