/* What libtram shows to libtram-tls of the same version, and to nobody else: cmake/tram.map lists it. */
#ifndef TRAM_CORE_BASE_PRIVATE_H
#define TRAM_CORE_BASE_PRIVATE_H

#define TRAM_PRIVATE_API __attribute__((visibility("default")))

#endif
