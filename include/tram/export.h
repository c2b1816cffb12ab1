/* How a public declaration is marked. Everything not marked TRAM_API is invisible outside the library. */
#ifndef TRAM_EXPORT_H
#define TRAM_EXPORT_H

#ifdef __cplusplus
#define TRAM_BEGIN_DECLS extern "C" {
#define TRAM_END_DECLS   }
#else
#define TRAM_BEGIN_DECLS
#define TRAM_END_DECLS
#endif

#define TRAM_API __attribute__((visibility("default")))

/* Checks the format string of a printf-like function at compile time. */
#define TRAM_PRINTF(text_index, first_index) __attribute__((format(printf, text_index, first_index)))

#endif
