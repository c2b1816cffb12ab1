#include <tram/version.h>

const char *tram_version(void) {
    return TRAM_VERSION_STRING;
}
